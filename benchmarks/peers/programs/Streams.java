import com.fasterxml.jackson.annotation.JsonInclude;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import com.fasterxml.jackson.databind.ObjectWriter;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.ByteBuffer;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.StandardCopyOption;
import java.util.Properties;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.kafka.common.serialization.Deserializer;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.common.serialization.Serializer;
import org.apache.kafka.common.utils.Bytes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.processor.api.Processor;
import org.apache.kafka.streams.processor.api.ProcessorContext;
import org.apache.kafka.streams.processor.api.Record;
import org.apache.kafka.streams.state.KeyValueStore;
import org.apache.kafka.streams.state.StoreBuilder;
import org.apache.kafka.streams.state.Stores;

/**
 * The jobs of the comparison in Kafka Streams, exactly_once_v2. Inputs and outputs are JSON by Jackson's readers and
 * writers of one type each. A row is 16 bytes, which is cheaper than JSON. With `store_cache`, the stores have a cache,
 * and each result is still forwarded. By default, a store of the Processor API has none; and an aggregation of the DSL
 * must have none to forward each result.
 */
public final class Streams {
    record Payment(long number, long amount, String branch, String note) {}

    record Balance(long total, long count) {}

    @JsonInclude(JsonInclude.Include.NON_NULL)
    record Result(long number, long total, long count, String note) {}

    private static final ObjectMapper JSON =
        new ObjectMapper().configure(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES, false);

    private static <T> Serde<T> json(Class<T> type) {
        ObjectReader reader = JSON.readerFor(type);
        ObjectWriter writer = JSON.writerFor(type);
        Serializer<T> serializer = (topic, value) -> {
            try {
                return value == null ? null : writer.writeValueAsBytes(value);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        Deserializer<T> deserializer = (topic, bytes) -> {
            try {
                return bytes == null ? null : reader.readValue(bytes);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }

    private static Serde<Balance> balances() {
        Serializer<Balance> serializer = (topic, row) ->
            row == null ? null : ByteBuffer.allocate(16).putLong(row.total()).putLong(row.count()).array();
        Deserializer<Balance> deserializer = (topic, bytes) -> {
            if (bytes == null) {
                return null;
            }
            ByteBuffer buffer = ByteBuffer.wrap(bytes);
            return new Balance(buffer.getLong(), buffer.getLong());
        };
        return Serdes.serdeFrom(serializer, deserializer);
    }

    /** Writes the time at which so many records are processed, on the clock that Python's time.monotonic() reads. */
    static final class Mark {
        private final AtomicLong left;
        private final Path file;

        Mark(JsonNode plan) {
            left = new AtomicLong(plan.get("mark_at").asLong());
            file = Path.of(plan.get("mark").asText());
        }

        void count() {
            if (left.decrementAndGet() == 0) {
                try {
                    Path draft = file.resolveSibling(file.getFileName() + ".draft");
                    Files.writeString(draft, System.nanoTime() / 1e9 + " 0");
                    Files.move(draft, file, StandardCopyOption.ATOMIC_MOVE);
                } catch (IOException error) {
                    throw new UncheckedIOException(error);
                }
            }
        }
    }

    /** The running sum of each key. With a store of ids: of records whose id is new. */
    static final class Sum implements Processor<String, Payment, String, Result> {
        private final Mark mark;
        private final boolean dedup;
        private ProcessorContext<String, Result> context;
        private KeyValueStore<String, Balance> sums;
        private KeyValueStore<Long, byte[]> ids;

        Sum(Mark mark, boolean dedup) {
            this.mark = mark;
            this.dedup = dedup;
        }

        @Override
        public void init(ProcessorContext<String, Result> context) {
            this.context = context;
            sums = context.getStateStore("sums");
            ids = dedup ? context.getStateStore("ids") : null;
        }

        @Override
        public void process(Record<String, Payment> record) {
            Payment payment = record.value();
            if (dedup && ids.putIfAbsent(payment.number(), new byte[1]) != null) {
                return;
            }
            Balance before = sums.get(record.key());
            Balance after = before == null
                ? new Balance(payment.amount(), 1)
                : new Balance(before.total() + payment.amount(), before.count() + 1);
            sums.put(record.key(), after);
            context.forward(record.withValue(
                new Result(payment.number(), after.total(), after.count(), payment.note())));
            mark.count();
        }
    }

    /** The running sum of each account; the payment is sent on under its branch. */
    static final class Account implements Processor<String, Payment, String, Payment> {
        private ProcessorContext<String, Payment> context;
        private KeyValueStore<String, Balance> accounts;

        @Override
        public void init(ProcessorContext<String, Payment> context) {
            this.context = context;
            accounts = context.getStateStore("accounts");
        }

        @Override
        public void process(Record<String, Payment> record) {
            Payment payment = record.value();
            Balance before = accounts.get(record.key());
            accounts.put(record.key(), before == null
                ? new Balance(payment.amount(), 1)
                : new Balance(before.total() + payment.amount(), before.count() + 1));
            context.forward(record.withKey(payment.branch()));
        }
    }

    private static StoreBuilder<KeyValueStore<String, Balance>> sums(String name, JsonNode plan) {
        return cached(
            Stores.keyValueStoreBuilder(Stores.persistentKeyValueStore(name), Serdes.String(), balances()), plan);
    }

    private static <K, V> StoreBuilder<KeyValueStore<K, V>> cached(
            StoreBuilder<KeyValueStore<K, V>> store, JsonNode plan) {
        return plan.get("store_cache").asBoolean() ? store.withCachingEnabled() : store;
    }

    private static Topology topology(JsonNode plan) {
        String job = plan.get("job").asText();
        String source = plan.get("source").asText();
        String target = plan.get("target").asText();
        Mark mark = new Mark(plan);
        Serde<String> keys = Serdes.String();
        Serde<Payment> payments = json(Payment.class);
        if (job.equals("batch")) {
            StreamsBuilder builder = new StreamsBuilder();
            builder.stream(source, Consumed.with(keys, payments))
                .groupByKey(Grouped.with(keys, payments))
                .aggregate(
                    () -> new Balance(0, 0),
                    (key, payment, row) -> {
                        mark.count();
                        return new Balance(row.total() + payment.amount(), row.count() + 1);
                    },
                    Materialized.<String, Balance, KeyValueStore<Bytes, byte[]>>as("sums")
                        .withKeySerde(keys).withValueSerde(balances()))
                .toStream()
                .to(target, Produced.with(keys, json(Balance.class)));
            return builder.build();
        }
        Topology topology = new Topology();
        String last = source;
        topology.addSource("in", keys.deserializer(), payments.deserializer(), source);
        if (job.equals("two-stages")) {
            String middle = plan.get("middle").asText();
            topology.addProcessor("account", Account::new, "in");
            topology.addStateStore(sums("accounts", plan), "account");
            topology.addSink("middle-out", middle, keys.serializer(), payments.serializer(), "account");
            topology.addSource("middle-in", keys.deserializer(), payments.deserializer(), middle);
            topology.addProcessor("sum", () -> new Sum(mark, false), "middle-in");
        } else {
            topology.addProcessor("sum", () -> new Sum(mark, job.equals("dedup")), "in");
        }
        topology.addStateStore(sums("sums", plan), "sum");
        if (job.equals("dedup")) {
            topology.addStateStore(
                cached(
                    Stores.keyValueStoreBuilder(
                        Stores.persistentKeyValueStore("ids"), Serdes.Long(), Serdes.ByteArray()), plan),
                "sum");
        }
        topology.addSink("out", target, keys.serializer(), json(Result.class).serializer(), "sum");
        return topology;
    }

    private static Properties settings(JsonNode plan) {
        Properties settings = new Properties();
        settings.put(StreamsConfig.APPLICATION_ID_CONFIG, plan.get("name").asText());
        settings.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, plan.get("servers").asText());
        settings.put(StreamsConfig.STATE_DIR_CONFIG, plan.get("state_dir").asText());
        settings.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        settings.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, plan.get("threads").asInt());
        settings.put("enable.transactional.statestores", true);
        settings.put(StreamsConfig.STATESTORE_CACHE_MAX_BYTES_CONFIG, 64 * 1024 * 1024);
        settings.put(StreamsConfig.producerPrefix("compression.type"), "lz4");
        settings.put(StreamsConfig.consumerPrefix("auto.offset.reset"), "earliest");
        settings.put(StreamsConfig.mainConsumerPrefix("session.timeout.ms"), 10_000);
        settings.put(StreamsConfig.mainConsumerPrefix("heartbeat.interval.ms"), 3_000);
        settings.put(StreamsConfig.mainConsumerPrefix("group.instance.id"), plan.get("worker").asText());
        if (plan.get("commit_ms").asInt() > 0) {
            settings.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, plan.get("commit_ms").asInt());
        }
        return settings;
    }

    public static void main(String[] arguments) throws IOException {
        JsonNode plan = JSON.readTree(System.getenv("BENCHMARK_PLAN"));
        KafkaStreams streams = new KafkaStreams(topology(plan), settings(plan));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        streams.setStateListener((now, before) -> {
            if (now == KafkaStreams.State.ERROR) {
                Runtime.getRuntime().halt(1);
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }
}
