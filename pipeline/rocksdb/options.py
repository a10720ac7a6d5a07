"""How states are opened: the options of RocksDB, and the memory that all states of a process share.

The budget is the block cache. It also counts the write buffers, so that they leave less room for blocks, and index and
filter blocks. So the memory of RocksDB does not grow with the number of states or with their sizes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rocksdict import (
    AccessType,
    BlockBasedIndexType,
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    WriteBufferManager,
)

from pipeline.directories import is_present

__all__ = ["SharedMemory", "open_database"]

_ROWS = "default"  # the name of RocksDB's default column family
# After a crash, opening a state replays the write-ahead log of its write buffer. The states open one after the other,
# because the client holds the interpreter lock meanwhile. A full buffer of this size takes about 60 ms, one of 16 MiB
# takes 250 ms. For a task with millions of random writes, 16 MiB would save 6 % of CPU time and 30 % of disk writes.
_WRITE_BUFFER_BYTES = 4 * 1024 * 1024
# With more states than this, their write buffers are smaller: also an empty one takes memory, for its filter.
_LARGE_WRITE_BUFFERS = 32
_LEAST_WRITE_BUFFER_BYTES = 1024 * 1024
# The write buffers of all states may take half of the block cache. If they take more, the largest is flushed, unless it
# is smaller than this: the tables on the disk would become too small.
_LEAST_FLUSH_BYTES = 512 * 1024
_WAL_BYTES = 64 * 1024 * 1024


class SharedMemory:
    """What the states of a process share: a block cache, which also counts their write buffers.

    RocksDB can limit write buffers of several databases as well, but then flushes the buffer that is written to,
    however small it is, while idle ones keep the memory. So it only counts, and `RocksStores` flushes the largest.
    """

    def __init__(self, block_cache_bytes: int) -> None:
        self.cache = Cache(block_cache_bytes)
        self.write_buffers = WriteBufferManager.new_write_buffer_manager_with_cache(0, False, self.cache)
        self.write_buffer_bytes = _WRITE_BUFFER_BYTES  # of the next state
        self._limit_bytes = block_cache_bytes // 2

    def adapt(self, states: int) -> None:
        """There are so many states, with the one that is opened next."""
        equal_bytes = _LARGE_WRITE_BUFFERS * _WRITE_BUFFER_BYTES // states
        self.write_buffer_bytes = max(_LEAST_WRITE_BUFFER_BYTES, min(_WRITE_BUFFER_BYTES, equal_bytes))

    @property
    def exceeded(self) -> bool:
        """Whether the write buffers take more than their limit. Takes less than a microsecond."""
        return self.write_buffers.get_usage() > self._limit_bytes

    def to_flush(self, buffers: Sequence[int]) -> int | None:
        """Which of the buffers to flush, of these sizes; None if none needs to be. Those being flushed do not count."""
        if sum(buffers) <= self._limit_bytes:
            return None
        largest = max(range(len(buffers)), key=buffers.__getitem__)
        return largest if buffers[largest] >= _LEAST_FLUSH_BYTES else None


def open_database(path: Path, memory: SharedMemory, access: AccessType | None = None) -> Rdict:
    """Open or create a database with these options, also for the column family of an existing database.

    By default, the client reads the options of a column family from the database's options file. That file has no cache
    and no filter, so each state would have its own cache and no filters.
    """
    options = _options(memory)
    families = {_ROWS: options} if is_present(path / "CURRENT") else None
    if access is None:
        return Rdict(str(path), options, column_families=families)
    return Rdict(str(path), options, column_families=families, access_type=access)


def _options(memory: SharedMemory) -> Options:
    table = BlockBasedOptions()
    table.set_block_cache(memory.cache)
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
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_write_buffer_size(memory.write_buffer_bytes)
    # The memtable also has a filter, because a lookup of a missing row searches it first.
    options.set_memtable_whole_key_filtering(True)
    options.set_memtable_prefix_bloom_ratio(0.05)
    options.set_max_total_wal_size(_WAL_BYTES)
    options.set_max_background_jobs(2)
    options.set_table_cache_num_shard_bits(2)  # the default of 64 shards takes 20 KB in each state
    options.set_keep_log_file_num(2)
    options.set_max_log_file_size(4 * 1024 * 1024)
    options.set_stats_dump_period_sec(0)
    return options
