"""The bytes of every durable format, as they were first written. Later releases must read them, and write the same."""

from __future__ import annotations

import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from pipeline.core.checkpoint import Manifest, StateFile, decode_manifest, encode_manifest, manifest_digest
from pipeline.core.checkpoint_refs import CHECKPOINTS, CheckpointRef, encode_kept, kept_checkpoints
from pipeline.core.crashes import Input, Span, Suspect, decode_suspects, encode_suspects
from pipeline.core.dead_letter_count import (
    LetterCount,
    LetterNumber,
    LetterTally,
    decode_tally,
    encode_tally,
)
from pipeline.core.departures import Departure
from pipeline.core.entry_body import partitions_to_reset
from pipeline.core.journal_format import (
    Entry,
    EntryKind,
    Identity,
    InputFacts,
    JournalEntry,
    assemble,
    encode_entry,
)
from pipeline.core.names import TaskId
from pipeline.core.notes import (
    Claim,
    DeferredGroup,
    MeasuredSpeed,
    Owner,
    Suspected,
    decode_note,
    encode_note,
)
from pipeline.core.position import AppliedPosition
from pipeline.core.position import decode_position as decode_applied
from pipeline.core.position import encode_position as encode_applied
from pipeline.core.recovery_time import RecoverySpeed
from pipeline.errors import PipelineError
from pipeline.ops.dead_letters.marks import ReplayMark, decode_mark, mark_output
from pipeline.ops.loading.finished_files import FinishedFiles, Waypoint
from pipeline.ops.loading.positions import LoadOptions, LoadPosition, decode_position, encode_position
from pipeline.ports import Ending
from pipeline.rocksdb.crash_files import CrashFiles

WHEN_MS = 1_700_000_000_000
CHAIN = b"0123456789abcdef"
TASK = TaskId("app", "main", 3)
IDENTITY = Identity(
    "cluster", "murmur2_random", {"in": InputFacts("id-1", 4)}, {"t": "str->json:int"}, "topo"
)
REF = CheckpointRef(7, 20, CHAIN, b"nonce-012345", b"d" * 20, 4096, 900, WHEN_MS)
APPLIED = AppliedPosition(7, 20, 22, CHAIN, {"in": 300}, IDENTITY, -1, 12, (REF,), 900)
MANIFEST = Manifest(
    str(TASK), "worker-1", WHEN_MS, APPLIED, (StateFile("000012.sst", 4096, b"c" * 20, "objects/aa-bb"),)
)
TALLY = LetterTally(group="main", topic_id="id-2", open=3, counted={0: LetterNumber(4, 9)}, wall_ms=WHEN_MS)
MARK = ReplayMark(
    app="app",
    group="main",
    partition=3,
    offset=41,
    topic_id="id-2",
    times=1,
    replay=2,
    replayed_ms=WHEN_MS,
    nonce="6e6f6e6365",
)
DISCARDED = msgspec.structs.replace(MARK, discarded=True)
LOAD = LoadPosition(
    name="load-1",
    run=1,
    seq=2,
    nonce="6e6f6e6365",
    topic="flights",
    topic_id="id-3",
    file="b.csv",
    options=LoadOptions(format="csv", key="carrier", null=("NA",)),
    offset=512,
    line=40,
    records=75,
    skipped=1,
    prefix_hash="ab" * 16,
    finished=False,
    text_columns=("tail",),
    finished_files=FinishedFiles(1, "cd" * 16, (Waypoint(1, "a.csv", 600, "cd" * 16),)),
)
SUSPECTS = {Input(TASK, "in", "id-1"): [Suspect(Span(41, 44), 2, True)]}
COUNT = LetterCount("id-2", 1, 4, True, 0.5, WHEN_MS)
ENTRY = Entry(
    kind=EntryKind.COMMIT,
    seq=2,
    owner="worker-1",
    nonce=b"0123456789ab",
    positions={"in": 8},
    delta={b"tttt-a": b"1", b"tttt-b": None},
    wall_ms=WHEN_MS,
    extra={"x": b"y"},
    checkpoint=12,
    journal_bytes=300,
    letters=COUNT,
)
IDENTITY_2 = msgspec.structs.replace(IDENTITY, inputs={"in": InputFacts("id-1", 8)}, tasks=4)
APPLIED_2 = msgspec.structs.replace(APPLIED, positions={"in": 300, "in/1": 7}, identity=IDENTITY_2)
MANIFEST_2 = msgspec.structs.replace(MANIFEST, applied=APPLIED_2)
ENTRY_2 = msgspec.structs.replace(
    ENTRY,
    kind=EntryKind.RESET,
    positions={"in": 8, "in/1": 0},
    delta={b"\x01\x00\x07tttt-a": b"1"},
    identity=IDENTITY_2,
    extra=partitions_to_reset([7]),
)
APPLIED_BODY = (
    "9a071416c4103031323334353637383961626364656681a2696ecd012c95a7636c7573746572ae6d75726d7572325f"
    "72616e646f6d81a2696e94a469642d3104c2c281a174ad7374722d3e6a736f6e3a696e74a4746f706fff0c91980714"
    "c41030313233343536373839616263646566c40c6e6f6e63652d303132333435c414646464646464646464646464"
    "6464646464646464cd1000cd0384cf0000018bcfe56800cd0384"
)
APPLIED_BODY_2 = (
    "9a071416c4103031323334353637383961626364656681a2696e92cd012c0796a7636c7573746572ae6d75726d75"
    "72325f72616e646f6d81a2696e94a469642d3108c2c281a174ad7374722d3e6a736f6e3a696e74a4746f706f04ff"
    "0c91980714c41030313233343536373839616263646566c40c6e6f6e63652d303132333435c41464646464646464"
    "64646464646464646464646464cd1000cd0384cf0000018bcfe56800cd0384"
)
KEPT = (
    "0191980714c41030313233343536373839616263646566c40c6e6f6e63652d303132333435c41464646464646464"
    "64646464646464646464646464cd1000cd0384cf0000018bcfe56800"
)
MARK_BODY = (
    b'{"app":"app","group":"main","partition":3,"offset":41,"topic_id":"id-2","times":1,"replay":2,'
    b'"replayed_ms":1700000000000,"nonce":"6e6f6e6365"}'
)


class Format(NamedTuple):
    """One durable format: a value, its bytes, and what writes and reads them.

    `damaged`: what reading damaged bytes may return where it does not raise.
    """

    name: str
    value: object
    data: bytes
    write: Callable[[], bytes | None]
    read: Callable[[bytes], object]
    damaged: tuple[object, ...] = ()


def read_manifest(data: bytes) -> Manifest:
    return decode_manifest(data, TASK, msgspec.structs.replace(REF, digest=manifest_digest(data)))


def read_kept(data: bytes) -> object:
    entry = msgspec.structs.replace(ENTRY, kind=EntryKind.CHECKPOINT, extra={CHECKPOINTS: data})
    return kept_checkpoints(JournalEntry(entry, 20, 21, CHAIN))


SEALED = [
    Format(
        "applied position",
        APPLIED,
        bytes.fromhex("015f28ab24" + APPLIED_BODY),
        lambda: encode_applied(APPLIED),
        lambda data: decode_applied(data, "the state"),
    ),
    Format(
        "manifest of a checkpoint",
        MANIFEST,
        bytes.fromhex(
            "584d01c6616614a0a353ab99f50006b5a1363b95aa6170702f6d61696e2f33a8776f726b65722d31cf0000018bcfe56800"
            + APPLIED_BODY
            + "9194aa3030303031322e737374cd1000c4146363636363636363636363636363636363636363ad6f626a656374732f"
            "61612d6262"
        ),
        lambda: encode_manifest(MANIFEST),
        read_manifest,
    ),
    Format(
        "applied position, format 2",
        APPLIED_2,
        bytes.fromhex("0248716b9f" + APPLIED_BODY_2),
        lambda: encode_applied(APPLIED_2),
        lambda data: decode_applied(data, "the state"),
    ),
    Format(
        "manifest of a checkpoint, format 2",
        MANIFEST_2,
        bytes.fromhex(
            "584d02b7c5bbb31937628a127493d406293f3795aa6170702f6d61696e2f33a8776f726b65722d31cf0000018bcfe56800"
            + APPLIED_BODY_2
            + "9194aa3030303031322e737374cd1000c4146363636363636363636363636363636363636363ad6f626a656374732f"
            "61612d6262"
        ),
        lambda: encode_manifest(MANIFEST_2),
        read_manifest,
    ),
    Format(
        "number of open records",
        TALLY,
        b'{"version":1,"checksum":"3ee6a822d08069b1","tally":{"group":"main","topic_id":"id-2","open":3,'
        b'"counted":{"0":[4,9]},"wall_ms":1700000000000}}',
        lambda: encode_tally(TALLY),
        decode_tally,
        (None,),
    ),
    Format(
        "mark of a replay",
        MARK,
        b'{"version":1,"checksum":"7d0382fcc9a35b45","mark":' + MARK_BODY + b"}",
        lambda: mark_output(MARK).value,
        lambda data: decode_mark(data, "app"),
    ),
    Format(
        "mark of a discard",
        DISCARDED,
        b'{"version":1,"checksum":"7d0382fcc9a35b45","mark":'
        + MARK_BODY
        + b',"discarded":"7720056c24988c7c"}',
        lambda: mark_output(DISCARDED).value,
        lambda data: decode_mark(data, "app"),
        (MARK,),  # where the name of the field is damaged: as releases read it that do not know the field
    ),
    Format(
        "position of a load",
        LOAD,
        b'{"version":2,"name":"load-1","checksum":"94462a3a2ab03f36","load":{"name":"load-1","run":1,"seq":2,'
        b'"nonce":"6e6f6e6365","topic":"flights","topic_id":"id-3","file":"b.csv","options":{"format":"csv",'
        b'"key":"carrier","id":null,"timestamp":null,"null":["NA"],"text":[]},"offset":512,"line":40,'
        b'"records":75,"skipped":1,"prefix_hash":"abababababababababababababababab","finished":false,'
        b'"text_columns":["tail"],"passed":{"count":1,"chain":"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd",'
        b'"waypoints":[[1,"a.csv",600,"cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"]]}}}',
        lambda: encode_position(LOAD),
        lambda data: decode_position(data, "load-1"),
        (None,),  # another load's
    ),
    Format(
        "suspects",
        (SUSPECTS, "process-1"),
        b'7038462f\n[1,"process-1",[[[["app","main",3],"in","id-1"],[[41,44],2,true]]]]',
        lambda: encode_suspects(SUSPECTS, "process-1"),
        decode_suspects,
        (({}, ""),),
    ),
]


def note(about: Owner | Claim | Departure | DeferredGroup | Suspected | MeasuredSpeed, data: bytes) -> Format:
    task = None if isinstance(about, Departure | MeasuredSpeed) else TASK
    read_task = TaskId("app", "", -1) if task is None else task
    return Format(
        f"note: {type(about).__name__}",
        (read_task, about),
        data,
        lambda: encode_note(task, about)[1],
        lambda found: decode_note("app", found),
    )


# The entry that carries it has a checksum; notes are hints.
WITHOUT_CHECKSUM = [
    Format("kept checkpoints", (REF,), bytes.fromhex(KEPT), lambda: encode_kept([REF]), read_kept),
    note(
        Owner(7, "worker-1", "process-1", True, "why", "db"),
        b'[1,"main",3,[7,"worker-1","process-1",true,"why","db"],null,null,null,null]',
    ),
    note(
        Owner(7, "worker-1", "process-1", False, "why", retrying=True),
        b'[1,"main",3,[7,"worker-1","process-1",false,"why",""],null,null,null,null,true]',
    ),
    note(
        Owner(7, "worker-1", "process-1", database="db", tasks=2),
        b'[1,"main",3,[7,"worker-1","process-1",false,"","db"],null,null,null,null,false,null,"",0,null,null,2]',
    ),
    note(
        Claim("worker-1", "process-1", True, "why"),
        b'[1,"main",3,null,["worker-1","process-1",true,"why"],null,null,null]',
    ),
    note(Departure("worker-1", "process-1"), b'[1,"",-1,null,null,["worker-1","process-1"],null,null]'),
    note(
        DeferredGroup("worker-1", "process-1", "why"),
        b'[1,"main",3,null,null,null,["worker-1","process-1","why"],null]',
    ),
    note(
        Suspected((("in", "id-1", Suspect(Span(41, 44), 2, True)),)),
        b'[1,"main",3,null,null,null,null,[[["in","id-1",[[41,44],2,true]]]]]',
    ),
    note(
        MeasuredSpeed("worker-1", RecoverySpeed(1.5, 0.5, 1e8, 4e7)),
        b'[1,"",-1,null,null,null,null,null,false,["worker-1",[1.5,0.5,100000000.0,40000000.0]]]',
    ),
]
CHUNKS = [
    (
        "584a0103000000000000000200000000000000026b92c0cf7b5e4fe0ccdd4f2048873bd877e42bfb9d0302a8776f726b"
        "65722d31c40c30313233343536373839616281a2696e0882c406747474742d61c40131c406747474742d62c0c0cf0000"
        "018bcfe56800ff81"
    ),
    (
        "584a0103000000010000000200000000000000026b92c0cf7b5e4fe0ccdd4f2048873bd804bd12d0a178c401790ccd01"
        "2c96a469642d320104c3cb3fe0000000000000cf0000018bcfe56800"
    ),
]

CHUNK_2 = (
    "584a020600000000000000010000000000000002af15e2214081f502dd499ba0221e7a4bc600c9ea9d0602a8776f"
    "726b65722d31c40c30313233343536373839616281a2696e92080081c409010007747474742d61c4013196a7636c"
    "7573746572ae6d75726d7572325f72616e646f6d81a2696e94a469642d3108c2c281a174ad7374722d3e6a736f6e"
    "3a696e74a4746f706f04cf0000018bcfe56800ff81aa706172746974696f6e73c40200070ccd012c96a469642d32"
    "0104c3cb3fe0000000000000cf0000018bcfe56800"
)


def name_of(one: Format) -> str:
    return one.name


@pytest.mark.parametrize("one", SEALED + WITHOUT_CHECKSUM, ids=name_of)
def test_a_format_is_written_byte_for_byte_as_before(one: Format) -> None:
    """Workers of two releases share a cluster during a rolling upgrade: each must read what the other writes."""
    assert one.write() == one.data


@pytest.mark.parametrize("one", SEALED + WITHOUT_CHECKSUM, ids=name_of)
def test_a_format_is_read_as_it_was_written(one: Format) -> None:
    """States, journals and loads outlive releases."""
    assert one.read(one.data) == one.value


@pytest.mark.parametrize("one", SEALED, ids=name_of)
def test_every_changed_byte_is_noticed(one: Format) -> None:
    """A checksum that leaves out a byte lets damage pass for data."""
    for place in range(len(one.data)):
        data = bytearray(one.data)
        data[place] ^= 1
        try:
            read = one.read(bytes(data))
        except PipelineError:
            continue
        assert read in one.damaged, place


@pytest.mark.parametrize("one", SEALED, ids=name_of)
def test_a_shortened_value_is_noticed(one: Format) -> None:
    """A file system or a store may return the beginning only."""
    for length in range(len(one.data)):
        try:
            read = one.read(one.data[:length])
        except PipelineError:
            continue
        assert read in one.damaged, length


def test_an_entry_in_chunks_is_written_as_before() -> None:
    """The journal outlives every release."""
    chunks, chain = encode_entry(ENTRY, CHAIN, 64)
    assert [chunk.hex() for chunk in chunks] == CHUNKS
    assert chain.hex() == "6b92c0cf7b5e4fe0ccdd4f2048873bd8"
    found = list(assemble([(20 + index, bytes.fromhex(text)) for index, text in enumerate(CHUNKS)], "here"))
    assert [(item.entry, item.chain.hex(), item.next_offset) for item in found] == [(ENTRY, chain.hex(), 22)]


def test_an_entry_of_format_2_is_written_as_before() -> None:
    """Every new group has it, and its journal outlives every release."""
    chunks, chain = encode_entry(ENTRY_2, CHAIN, 1024, 2)
    assert [chunk.hex() for chunk in chunks] == [CHUNK_2]
    found = list(assemble([(20, bytes.fromhex(CHUNK_2))], "here"))
    assert [(item.entry, item.chain, item.version) for item in found] == [(ENTRY_2, chain, 2)]


def test_the_note_of_a_process_is_written_as_before(tmp_path: Path) -> None:
    """The process that reads it may be of another release than the one that crashed."""
    (tmp_path / "app").mkdir()
    log = CrashFiles(tmp_path)
    assert log.previous("app") is None
    log.begin("process-1")
    log.handling(b"place", 41, 44)
    note_file = tmp_path / "app" / ".crashes" / "note"
    thread = struct.pack("<Q", threading.get_ident())
    expected = bytearray(4096)
    expected[:75] = b"\x01\x00" + thread + b"\x09process-1".ljust(65, b"\0")
    expected[128:151] = struct.pack("<Hqq", 5, 41, 44) + b"place"
    assert note_file.read_bytes() == expected
    assert CrashFiles(tmp_path).previous("app") == Ending(
        "process-1", False, b"place", 41, 44, threading.get_ident(), ""
    )
    log.leave()
