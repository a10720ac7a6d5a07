"""The traffic behind the pictures of the documentation, and how they replace the earlier ones."""

from __future__ import annotations

import struct
import sys
import zlib
from collections import Counter
from pathlib import Path

import msgspec
import pytest

from examples.orders.app import Order, Payment
from pipeline import PipelineError
from tests.support.pages import ROOT
from tools.screenshots import __main__ as screenshots
from tools.screenshots.__main__ import PICTURES, publish
from tools.screenshots.png import with_palette
from tools.screenshots.traffic import orders_and_payments, refused_orders, write_traffic

SHOWN = sorted(f"{picture.name}.png" for picture in PICTURES if picture.shown)


def test_the_app_accepts_the_orders_and_payments(tmp_path: Path) -> None:
    """Else the page would show only dead letters."""
    orders, payments, _ = write_traffic(tmp_path, 200)
    for file, kind in ((orders, Order), (payments, Payment)):
        lines = file.read_bytes().splitlines()
        assert [msgspec.json.decode(line, type=kind) for line in lines]
        assert len(lines) >= 190


def test_the_app_refuses_the_orders_that_become_dead_letters() -> None:
    """The pictures show their errors."""
    for row in refused_orders():
        with pytest.raises(msgspec.ValidationError, match="cents"):
            msgspec.convert(row, Order)


def test_some_orders_stay_unpaid_and_the_others_are_paid() -> None:
    """Unpaid orders are the rows of the table that the page shows."""
    orders, payments = orders_and_payments(500)
    paid: Counter[object] = Counter()
    for row in payments:
        paid[row["order"]] += int(str(row["cents"]))
    unpaid = [row for row in orders if row["order"] not in paid]
    assert 5 < len(unpaid) < 50
    assert all(paid[row["order"]] == row["cents"] for row in orders if row not in unpaid)
    assert len(payments) > len(paid)  # some orders have two payments
    assert (orders, payments) == orders_and_payments(500)


def test_a_picture_that_is_too_large_replaces_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The repository keeps every version of a picture."""
    monkeypatch.setattr(screenshots, "MAX_BYTES", 200)
    build, assets = tmp_path / "build", tmp_path / "assets"
    build.mkdir()
    assets.mkdir()
    small = png_of([(0, bytes(3))], width=1)
    for name in SHOWN:
        (build / name).write_bytes(small)
        (assets / name).write_bytes(b"old")
    (build / SHOWN[-1]).write_bytes(png_of([(0, bytes(range(240)))], width=80))
    with pytest.raises(PipelineError, match=SHOWN[-1]):
        publish(build, assets)
    assert {(assets / name).read_bytes() for name in SHOWN} == {b"old"}
    (build / SHOWN[-1]).write_bytes(small)
    publish(build, assets)
    assert {(assets / name).read_bytes() for name in SHOWN} == {with_palette(small)}


def test_the_command_takes_every_picture_of_the_documentation() -> None:
    """A picture that no command takes becomes old."""
    assert sorted(path.name for path in (ROOT / "docs" / "assets").glob("*.png")) == SHOWN


def png_of(lines: list[tuple[int, bytes]], width: int) -> bytes:
    """A PNG of RGB pixels. `lines`: the filter of each, and its filtered bytes."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
        )

    body = zlib.compress(b"".join(bytes([kind]) + line for kind, line in lines))
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, len(lines), 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def pixels_of(picture: bytes) -> list[list[tuple[int, ...]]]:
    """The lines of a picture with a palette and without filters."""
    parts = {kind: picture.index(kind) for kind in (b"IHDR", b"PLTE", b"IDAT")}
    width, height = struct.unpack_from(">II", picture, parts[b"IHDR"] + 4)
    (size,) = struct.unpack_from(">I", picture, parts[b"PLTE"] - 4)
    palette = picture[parts[b"PLTE"] + 4 :][:size]
    body = zlib.decompressobj().decompress(picture[parts[b"IDAT"] + 4 :])
    lines = [body[at + 1 : at + 1 + width] for at in range(0, height * (width + 1), width + 1)]
    return [[tuple(palette[3 * index : 3 * index + 3]) for index in line] for line in lines]


def test_a_picture_with_few_colours_is_kept_exactly() -> None:
    """With each of the five filters of the format: the second pixel of each line is (10, 20, 30)."""
    picture = png_of(
        [
            (0, bytes([1, 2, 3, 10, 20, 30])),
            (1, bytes([1, 2, 3, 9, 18, 27])),
            (2, bytes([0, 0, 0, 0, 0, 0])),
            (3, bytes([1, 1, 2, 5, 9, 14])),
            (4, bytes([0, 0, 0, 0, 0, 0])),
        ],
        width=2,
    )
    assert pixels_of(with_palette(picture)) == [[(1, 2, 3), (10, 20, 30)]] * 5


def test_a_rare_colour_becomes_the_nearest_frequent_one() -> None:
    """A palette has 256 colours, and a page has thousands."""
    frequent = [(index, 0, 0) for index in range(256)] * 2
    picture = png_of([(0, bytes(c for pixel in [*frequent, (7, 1, 0)] for c in pixel))], width=513)
    [line] = pixels_of(with_palette(picture))
    assert line == [*frequent, (7, 0, 0)]


def test_without_chromium_the_command_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It must not start a Kafka first, and most machines of developers have no Chromium."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["screenshots"])
    assert screenshots.main() == 1
    said = capsys.readouterr().out
    assert said.startswith("screenshots failed: headless Chromium is missing: ")
    assert "install the package chromium" in said
