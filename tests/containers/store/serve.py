"""Serve S3 from memory until SIGTERM, with one bucket."""

import os
import signal

import boto3
from moto.server import ThreadedMotoServer

PORT = 8333

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})
server = ThreadedMotoServer(ip_address="0.0.0.0", port=PORT, verbose=False)  # noqa: S104 - in a container
server.start()
boto3.client("s3", endpoint_url=f"http://127.0.0.1:{PORT}", region_name="us-east-1").create_bucket(
    Bucket=os.environ["S3_BUCKET"]
)
signal.sigwait({signal.SIGTERM, signal.SIGINT})
