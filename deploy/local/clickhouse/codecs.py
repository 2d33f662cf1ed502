"""Compressed bodies, a piece at a time: nothing is ever unpacked as a whole."""

import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

import lz4.frame
from backports import zstd

from deploy.local.clickhouse.exceptions import ClickHouseException, Code

__all__ = ["Compressor", "accepted", "compressor", "decompressed"]

PIECE = 1024 * 1024  # bytes unpacked at most at a time
# ClickHouse's order of preference among those this server can write.
_ANSWERS = ("lz4", "zstd", "gzip", "deflate")
_ZLIB, _GZIP = 15, 31  # window bits: zlib's own wrapping, and gzip's


class Compressor(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def accepted(accept_encoding: str) -> str | None:
    """The encoding to answer in, None for none."""
    offered = {part.split(";")[0].strip().lower() for part in accept_encoding.split(",")}
    return next((name for name in _ANSWERS if name in offered), None)


def compressor(encoding: str) -> Compressor:
    if encoding == "lz4":
        return _Lz4()
    if encoding == "zstd":
        return zstd.ZstdCompressor(level=1)
    return zlib.compressobj(level=3, wbits=_GZIP if encoding == "gzip" else _ZLIB)


def decompressed(pieces: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    """The body's content in pieces. Raises ClickHouseException for an unknown encoding and for broken or cut data."""
    try:
        match encoding:
            case "" | "identity":
                yield from pieces
            case "gzip" | "deflate":
                yield from _zlib(pieces, _GZIP if encoding == "gzip" else _ZLIB)
            case "lz4":
                yield from _framed(pieces, lz4.frame.LZ4FrameDecompressor)
            case "zstd":
                yield from _framed(pieces, zstd.ZstdDecompressor)
            case _:
                raise ClickHouseException(
                    Code.NOT_IMPLEMENTED,
                    f"Content-Encoding {encoding!r}: this server reads lz4, zstd, gzip and deflate",
                )
    except (zlib.error, RuntimeError, zstd.ZstdError) as broken:
        raise ClickHouseException(Code.INCORRECT_DATA, f"Cannot decompress the {encoding} body: {broken}") from broken


def _framed(pieces: Iterable[bytes], frame: Callable[[], Any]) -> Iterator[bytes]:
    """Frames one after the other are one content, as the formats define."""
    current = None
    for piece in pieces:
        data = piece
        while data or (current is not None and not current.eof and not current.needs_input):
            current = current or frame()
            yield current.decompress(data, PIECE)
            data = b""
            if current.eof:
                data, current = current.unused_data or b"", None
    if current is not None:
        raise RuntimeError("it ends in the middle of a frame")


def _zlib(pieces: Iterable[bytes], window_bits: int) -> Iterator[bytes]:
    current = zlib.decompressobj(window_bits)
    begun = False
    for piece in pieces:
        data = piece
        while data:
            begun = True
            yield current.decompress(data, PIECE)
            data = current.unconsumed_tail
            if current.eof:
                data, current, begun = current.unused_data, zlib.decompressobj(window_bits), False
    if begun:
        raise RuntimeError("it ends in the middle of a stream")


class _Lz4:
    """lz4.frame writes its header by a call of its own; here the first data brings it."""

    def __init__(self) -> None:
        self._frame = lz4.frame.LZ4FrameCompressor()
        self._begun = False

    def compress(self, data: bytes, /) -> bytes:
        return self._begin() + bytes(self._frame.compress(data))

    def flush(self) -> bytes:
        return self._begin() + bytes(self._frame.flush())

    def _begin(self) -> bytes:
        if self._begun:
            return b""
        self._begun = True
        return bytes(self._frame.begin())
