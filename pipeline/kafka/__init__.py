"""The adapters of the Kafka ports. Only this package imports confluent_kafka."""
