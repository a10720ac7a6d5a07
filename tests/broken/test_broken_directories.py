"""Broken on purpose: who may enter the directories that hold data, and which storage a broker accepts."""

from __future__ import annotations

import pytest

import pipeline.broker.checks
import pipeline.databases.sqlite
import pipeline.directories
import pipeline.object_store.checkpoint_store
import pipeline.rocksdb.rocks
import pipeline.runtime.assignment.cleanup
from tests.support.breaking import Broken, Copy, name_of

ROWS = [
    Broken(
        "directories are created with the mode that the umask leaves",
        pipeline.directories.make_private,
        "        directory.mkdir(mode=_PRIVATE, exist_ok=True)\n",
        "        directory.mkdir(exist_ok=True)\n",
        "tests/test_directories.py",
    ),
    Broken(
        "a state of an earlier release stays open to every user",
        pipeline.rocksdb.rocks.RocksStores.claim,
        "            close_to_others(path.parent)\n",
        "",
        "tests/test_directories.py earlier_release",
    ),
    Broken(
        "a mode that the operator chose for a group is changed",
        pipeline.directories.close_to_others,
        "mode & stat.S_IRWXO:",
        "mode != _PRIVATE:",
        "tests/test_directories.py everyone_could_enter",
    ),
    Broken(
        "checkpoints in a directory are open to every user",
        pipeline.object_store.checkpoint_store.ObjectCheckpointStore.put,
        '                _protect(self._directory / name.partition("/")[0])\n',
        "                pass\n",
        "tests/test_directories.py checkpoints",
    ),
    Broken(
        "a stat of an unreadable state ends in a traceback",
        pipeline.rocksdb.rocks.RocksStores.exists,
        "        except OSError as error:\n",
        "        except FileNotFoundError as error:\n",
        "tests/rocksdb/test_access.py unreadable_state",
    ),
    Broken(
        "the lock file of an unreadable state counts as locked",
        pipeline.rocksdb.rocks._locked,
        "    except FileNotFoundError:\n        return False\n",
        "    except FileNotFoundError:\n        return False\n    except OSError:\n        return True\n",
        "tests/rocksdb/test_access.py unreadable_state",
    ),
    Broken(
        "an unreadable state that is due for deletion ends the worker",
        pipeline.runtime.assignment.cleanup.StateCleanup._has_state,
        "        except PipelineError as error:\n",
        "        except ZeroDivisionError as error:\n",
        "tests/runtime/assignment/test_cleanup.py cannot_be_read",
    ),
    Broken(
        "a SQLite file without write permission is opened",
        pipeline.databases.sqlite.SqliteSession.__init__,
        "        if path.exists() and not os.access(path, os.W_OK):\n",
        "        if False:\n",
        "tests/sinks/test_access.py without_write_permission",
    ),
    Broken(
        "a broker starts on the storage of a newer Kafka",
        pipeline.broker.checks.require_readable,
        "    if _feature_release(state.kafka_version) > _feature_release(kafka_version):\n",
        "    if False:\n",
        "tests/broker/test_checks.py newer_kafka",
    ),
]


@pytest.mark.broken
@pytest.mark.parametrize("broken", ROWS, ids=name_of)
def test_a_broken_rule_is_noticed(broken: Broken, copied: Copy) -> None:
    """Tests that pass on a directory that everyone may read would be worth nothing."""
    copied.assert_noticed(broken)
