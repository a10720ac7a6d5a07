"""The local state of tasks in RocksDB. The only importer of rocksdict."""
