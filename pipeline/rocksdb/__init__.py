"""The local state of tasks in RocksDB. Only this package imports rocksdict."""
