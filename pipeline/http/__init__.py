"""The HTTP port of a worker, and of `pipeline ui`: probes, metrics, the page and its documents.

    server          the HTTP server, on its own threads, with its limits
    application     paths, methods, the token
    worker_metrics  the metrics of one worker, whatever reads them
    exporter        their values, and the format of Prometheus, from the worker's figures and meter
    documents       the status and the other documents of an app, read from Kafka
    port            all of it for one worker, with the two probes
    ui              the page: static files in `page/`; and its port without a worker

Nothing here runs on the processing thread, except `WorkerMetrics.publish`. Threads of the server read what the
processing thread has published, and their own Kafka clients.
"""
