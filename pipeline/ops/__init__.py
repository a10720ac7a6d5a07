"""Work behind the CLI commands. It reaches Kafka, disk and databases only through `pipeline/ports`."""
