"""The HTTP port of a worker: probes, metrics and the status.

    server       the HTTP server, on its own threads, with its limits
    application  paths, methods, the token
    health       the two probes
    exporter     metrics in the format of Prometheus, from the worker's figures and meter
    status       the document of `pipeline status --json`
    port         all of it for one worker

Nothing here runs on the processing thread, except `WorkerPort.publish`. Threads of the server read what the processing
thread has published, and their own Kafka clients.
"""
