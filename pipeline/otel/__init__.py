"""The adapter for OpenTelemetry, the only importer of its library: the extra `otel`.

    telemetry  starts and ends the export
    spans      `Tracer`: spans, and links to input records
    metrics    sends the metrics of `/metrics` at an interval
    collector  whether the collector accepts what is sent

Threads of its own send. The worker never waits for a collector, and a collector that does not answer costs it nothing
but the data. Nothing here is imported unless an endpoint is set.
"""
