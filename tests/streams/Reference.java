// Windows, sessions and joins of Kafka Streams in its TopologyTestDriver. Reads cases from standard input:
//
//     case KIND SIZE_MS EVERY_MS GRACE_MS       KIND: tumbling, hopping, sessions, join
//     left|right KEY TIME_MS NUMBER             an event, in the order in which it is processed
//     end
//
// and prints for each case the final results, and `end`:
//
//     window KEY START_MS NUMBERS               NUMBERS: 1,2,3 in the order in which they were added
//     pair KEY LEFT RIGHT
//     alone KEY LEFT

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.time.Instant;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.TestInputTopic;
import org.apache.kafka.streams.TopologyTestDriver;
import org.apache.kafka.streams.kstream.Aggregator;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.KStream;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.SessionWindows;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.Suppressed;
import org.apache.kafka.streams.kstream.TimeWindows;
import org.apache.kafka.streams.kstream.Windowed;
import org.apache.kafka.streams.state.BuiltInDslStoreSuppliers.InMemoryDslStoreSuppliers;

public final class Reference {
    // Results that are due are looked for with each record, not once a second.
    private static final Map<String, Long> INTERVALS =
        Map.of("__emit.interval.ms.kstreams.outer.join.spurious.results.fix__", 0L);

    private static final Aggregator<String, String, String> ADD =
        (key, number, numbers) -> numbers.isEmpty() ? number : numbers + "," + number;

    public static void main(String[] arguments) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            List<String[]> events = new ArrayList<>();
            for (String event = in.readLine(); !event.equals("end"); event = in.readLine()) {
                events.add(event.split(" "));
            }
            run(line.split(" "), events);
            System.out.println("end");
        }
        System.out.flush();
    }

    private static void run(String[] about, List<String[]> events) {
        Duration size = Duration.ofMillis(Long.parseLong(about[2]));
        Duration every = Duration.ofMillis(Long.parseLong(about[3]));
        Duration grace = Duration.ofMillis(Long.parseLong(about[4]));
        StreamsBuilder builder = new StreamsBuilder();
        KStream<String, String> left = builder.stream("left", Consumed.with(Serdes.String(), Serdes.String()));
        KStream<String, String> right = builder.stream("right", Consumed.with(Serdes.String(), Serdes.String()));
        switch (about[1]) {
            case "tumbling" -> windows(left, TimeWindows.ofSizeAndGrace(size, grace));
            case "hopping" -> windows(left, TimeWindows.ofSizeAndGrace(size, grace).advanceBy(every));
            case "sessions" -> sessions(left, SessionWindows.ofInactivityGapAndGrace(size, grace));
            default -> join(left, right, JoinWindows.ofTimeDifferenceAndGrace(size, grace));
        }
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, "reference");
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, "unused:9092");
        settings.put(StreamsConfig.STATE_DIR_CONFIG, System.getProperty("java.io.tmpdir"));
        // In memory, a store keeps sessions exactly as long as they may change. On disk, it keeps whole segments, and an
        // event may join sessions that were published long ago.
        settings.put(StreamsConfig.DSL_STORE_SUPPLIERS_CLASS_CONFIG, InMemoryDslStoreSuppliers.class);
        settings.putAll(INTERVALS);
        try (TopologyTestDriver driver = new TopologyTestDriver(builder.build(), settings, Instant.EPOCH)) {
            TestInputTopic<String, String> lefts =
                driver.createInputTopic("left", new StringSerializer(), new StringSerializer());
            TestInputTopic<String, String> rights =
                driver.createInputTopic("right", new StringSerializer(), new StringSerializer());
            for (String[] event : events) {
                (event[0].equals("left") ? lefts : rights)
                    .pipeInput(event[1], event[3], Long.parseLong(event[2]));
            }
        }
    }

    private static void windows(KStream<String, String> events, TimeWindows windows) {
        events
            .groupByKey(Grouped.with(Serdes.String(), Serdes.String()))
            .windowedBy(windows)
            .aggregate(() -> "", ADD,
                Materialized.with(Serdes.String(), Serdes.String()))
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .foreach(Reference::print);
    }

    private static void sessions(KStream<String, String> events, SessionWindows windows) {
        events
            .groupByKey(Grouped.with(Serdes.String(), Serdes.String()))
            .windowedBy(windows)
            .aggregate(() -> "", ADD, (key, earlier, later) -> earlier.isEmpty() ? later : earlier + "," + later,
                Materialized.with(Serdes.String(), Serdes.String()))
            .suppress(Suppressed.untilWindowCloses(Suppressed.BufferConfig.unbounded()))
            .toStream()
            .foreach(Reference::print);
    }

    private static void join(KStream<String, String> left, KStream<String, String> right, JoinWindows windows) {
        left
            .leftJoin(right, (one, two) -> two == null ? "alone " + one : "pair " + one + " " + two, windows,
                StreamJoined.with(Serdes.String(), Serdes.String(), Serdes.String()))
            .foreach((key, result) -> {
                int at = result.indexOf(' ');
                System.out.println(result.substring(0, at) + " " + key + result.substring(at));
            });
    }

    private static void print(Windowed<String> window, String numbers) {
        System.out.println("window " + window.key() + " " + window.window().start() + " " + numbers);
    }
}
