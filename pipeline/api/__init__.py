"""What users declare and what their handlers receive: apps, topics, tables, sinks, events, codecs."""
