"""The options of RocksDB: memory, filters and write buffers."""

from __future__ import annotations

from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
)

__all__ = ["open_database"]

_ROWS = "default"  # the name of RocksDB's default column family
# After a crash, opening a state replays the write-ahead log of its write buffer. The states open one after the other,
# because the client holds the interpreter lock meanwhile. A full buffer of this size takes about 60 ms, one of 16 MiB
# takes 250 ms. For a task with millions of random writes, 16 MiB would save 6 % of CPU time and 30 % of disk writes.
_WRITE_BUFFER_BYTES = 4 * 1024 * 1024
_WAL_BYTES = 64 * 1024 * 1024


def open_database(path: Path, cache: Cache, access: AccessType | None = None) -> Rdict:
    """Open or create a database with these options, also for the column family of an existing database.

    By default, the client reads the options of a column family from the database's options file. That file has no cache
    and no filter, so each state would have its own cache and no filters.
    """
    options = _options(cache)
    families = {_ROWS: options} if (path / "CURRENT").exists() else None
    if access is None:
        return Rdict(str(path), options, column_families=families)
    return Rdict(str(path), options, column_families=families, access_type=access)


def _options(cache: Cache) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(cache)
    table.set_bloom_filter(10, False)
    # Index and filter blocks are in the shared cache, so that memory is bounded for states of any size.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # The cache consists of shards of at least 512 KiB, and a shard does not keep a block that is larger than itself.
    # The single filter block of a file with a million keys is larger: it would be read again for every key, in 150 us
    # instead of 2 us. So index and filters are partitioned, and only their top level is pinned.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(32 * 1024)
    table.set_pin_top_level_index_and_filter(True)
    options = Options(raw_mode=True)  # in its default mode, the client unpickles data from the disk
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    # The memtable also has a filter, because a lookup of a missing row searches it first.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(0.05)
    options.set_max_total_wal_size(_WAL_BYTES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 * 1024 * 1024)
    options.set_stats_dump_period_sec(0)
    return options
