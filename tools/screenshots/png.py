"""Makes pictures small: a PNG of at most 256 colours, `with_palette`.

The most frequent colours are kept as they are, and each other one becomes the nearest of them. Pictures of pages have
few areas, and the many rare colours at the edges of characters, so the difference cannot be seen.
"""

from __future__ import annotations

import struct
import zlib
from collections import Counter
from collections.abc import Iterator

__all__ = ["with_palette"]

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_RGB, _RGBA, _PALETTE = 2, 6, 3
_CHANNELS = {_RGB: 3, _RGBA: 4}
_COLOURS = 256


def with_palette(picture: bytes) -> bytes:
    """The picture with a palette. `picture`: a PNG with 8 bits for each channel, opaque, and not interlaced."""
    header, data = b"", b""
    for kind, content in _chunks(picture):
        if kind == b"IHDR":
            header = content
        elif kind == b"IDAT":
            data += content
    width, height, depth, colours, _, _, interlaced = _HEADER.unpack(header)
    if depth != 8 or colours not in _CHANNELS or interlaced:
        raise ValueError(f"a PNG of type {colours} with {depth} bits is not supported")
    channels = _CHANNELS[colours]
    lines = [
        list(zip(line[0::channels], line[1::channels], line[2::channels], strict=True))
        for line in _lines(zlib.decompress(data), width * channels, channels)
    ]
    counts = Counter(pixel for line in lines for pixel in line)
    palette = [pixel for pixel, _ in counts.most_common(_COLOURS)]
    place = {pixel: index for index, pixel in enumerate(palette)}
    for pixel in counts:
        if pixel not in place:
            place[pixel] = place[min(palette, key=lambda known: _distance(pixel, known))]
    body = b"".join(b"\0" + bytes([place[pixel] for pixel in line]) for line in lines)
    return _SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", _HEADER.pack(width, height, 8, _PALETTE, 0, 0, 0)),
            _chunk(b"PLTE", bytes(channel for pixel in palette for channel in pixel)),
            _chunk(b"IDAT", zlib.compress(body, 9)),
            _chunk(b"IEND", b""),
        )
    )


def _distance(first: tuple[int, int, int], second: tuple[int, int, int]) -> int:
    return sum((one - other) ** 2 for one, other in zip(first, second, strict=True))


def _chunks(picture: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(picture):
        (size,) = struct.unpack_from(">I", picture, at)
        yield picture[at + 4 : at + 8], picture[at + 8 : at + 8 + size]
        at += 12 + size


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _lines(data: bytes, size: int, channels: int) -> Iterator[bytearray]:
    """The lines, without the filters of https://www.w3.org/TR/png-3/#9Filters."""
    before = bytearray(size)
    for start in range(0, len(data), size + 1):
        kind, line = data[start], bytearray(data[start + 1 : start + 1 + size])
        for index in range(size if kind else 0):
            left = line[index - channels] if index >= channels else 0
            up = before[index]
            if kind == 1:
                guess = left
            elif kind == 2:
                guess = up
            elif kind == 3:
                guess = (left + up) // 2
            else:
                guess = _paeth(left, up, before[index - channels] if index >= channels else 0)
            line[index] = (line[index] + guess) & 0xFF
        yield line
        before = line


def _paeth(left: int, up: int, corner: int) -> int:
    far_left, far_up, far_corner = abs(up - corner), abs(left - corner), abs(left + up - 2 * corner)
    if far_left <= far_up and far_left <= far_corner:
        return left
    return up if far_up <= far_corner else corner
