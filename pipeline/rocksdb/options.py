"""How RocksDB is set up: memory, filters, write buffers."""

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

_ROWS = "default"  # the column family that RocksDB keeps everything in
# After a crash, opening replays what is in the write buffers, task after task: the client holds the interpreter
# while it opens. This is about 60 ms for a full one. One of 16 MiB takes 250 ms; for a task that writes millions of
# rows at random it would save 6 % of CPU time and 30 % of the bytes written to disk.
_WRITE_BUFFER_BYTES = 4 * 1024 * 1024
_WAL_BYTES = 64 * 1024 * 1024


def open_database(path: Path, cache: Cache, access: AccessType | None = None) -> Rdict:
    """With our options, also when there is a database: the client would read the rows' own from its last files.

    Those say nothing of a cache or a filter, so each state would have a cache of its own, and no filters.
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
    # Index and filters count against the shared cache, so that memory is bounded whatever the state's size.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    # The cache is made of shards of 512 KiB and more, none of which keeps a block that is larger. The one filter of a
    # file of a million keys is: it would be read again for every key, at 150 us instead of 2. So both are cut into
    # pieces, and of those only the list is held.
    table.set_index_type(BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(32 * 1024)
    table.set_pin_top_level_index_and_filter(True)
    options = Options(raw_mode=True)  # the client's default mode unpickles what it finds on disk
    options.create_if_missing(True)
    options.set_block_based_table_factory(table)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_write_buffer_size(_WRITE_BUFFER_BYTES)
    # What was written last has a filter, too: a row that is not there is looked for in it first.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(0.05)
    options.set_max_total_wal_size(_WAL_BYTES)
    options.set_max_background_jobs(2)
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 * 1024 * 1024)
    options.set_stats_dump_period_sec(0)
    return options
