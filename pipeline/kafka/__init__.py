"""The ports of the runtime on a Kafka cluster. The only importer of confluent_kafka."""
