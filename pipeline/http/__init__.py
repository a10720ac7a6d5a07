"""The HTTP port of a worker, and of `pipeline ui`: probes, metrics, the page and its documents.

    server       the HTTP server, on its own threads, with its limits
    application  paths, methods, the token
    health       the two probes
    exporter     metrics in the format of Prometheus, from the worker's figures and meter
    documents    the status and the other documents of an app, read from Kafka
    assets       the page: static files in `page/`
    port         all of it for one worker
    ui           the page without a worker

Nothing here runs on the processing thread, except `WorkerPort.publish`. Threads of the server read what the processing
thread has published, and their own Kafka clients.
"""
