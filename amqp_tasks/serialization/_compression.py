"""Compressed bodies, under the names that kombu puts into the `compression` header.

Decompression goes piece by piece, so that a bomb is noticed after one piece too many and not after all of it.
"""

from __future__ import annotations

import bz2
import importlib
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Any, Protocol

from amqp_tasks.errors import ConfigurationError, MalformedMessage
from amqp_tasks.serialization._limits import DEFAULT_LIMITS, Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("compress", "compression_type", "decompress")

_PIECE = 256 * 1024
_RATIO_FLOOR = 1024 * 1024
_ZSTD_INPUT = 256
"""zstandard bounds what goes in, not what comes out: so few bytes hold at most 64 blocks of 128 KiB."""
_MEMORY_LIMIT = 128 * 1024 * 1024
"""What a decoder's dictionary may take; the stream's header asks for it before any data."""

_TYPES = {
    "gzip": "application/x-gzip",
    "zlib": "application/x-gzip",
    "bzip2": "application/x-bz2",
    "bzip": "application/x-bz2",
    "lzma": "application/x-lzma",
    "xz": "application/x-lzma",
    "zstd": "application/zstd",
    "zstandard": "application/zstd",
}


class _Decompressor(Protocol):
    """What bz2 and lzma decompressors share."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def _zstandard() -> Any:
    # By name: an extra that a type checker need not find.
    try:
        return importlib.import_module("zstandard")
    except ImportError as exc:
        raise ConfigurationError("zstd compression needs an extra: pip install 'amqp-tasks[zstd]'") from exc


def _compress_zstd(body: bytes) -> bytes:
    compressed: bytes = _zstandard().ZstdCompressor().compress(body)
    return compressed


_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    # A zlib stream, not a gzip file, whatever the name says: that is what kombu writes and reads.
    "application/x-gzip": zlib.compress,
    "application/x-bz2": bz2.compress,
    "application/x-lzma": lzma.compress,
    "application/zstd": _compress_zstd,
}


def compression_type(method: str) -> str:
    """The content of the `compression` header for a method's name (`zlib`, `bzip2`, `lzma`, `zstd` or a type).

    Raises:
        ConfigurationError: no such method, or its extra is not installed.
    """
    found = _TYPES.get(method, method)
    if found not in _COMPRESS:
        raise ConfigurationError(f"unknown compression {method!r}; known: {', '.join(sorted(_TYPES))}")
    if found == "application/zstd":
        _zstandard()
    return found


def compress(body: bytes, method: str) -> tuple[bytes, str]:
    """Compress a body; returns it with the content of its `compression` header.

    Raises:
        ConfigurationError: no such method, or its extra is not installed.
    """
    header = compression_type(method)
    return _COMPRESS[header](body), header


def decompress(body: bytes, method: str, *, limits: Limits = DEFAULT_LIMITS) -> bytes:
    """Decompress a received body within the limits.

    Raises:
        MalformedMessage: `bad-compression` or `decompress-bomb`.
    """
    open_pieces = _PIECES.get(_TYPES.get(method, method))
    if open_pieces is None:
        raise _bad(f"unknown method {method!r:.60}")
    pieces: list[bytes] = []
    total = 0
    try:
        for piece in open_pieces(body):
            pieces.append(piece)
            total += len(piece)
            _check(total, len(body), limits)
    except _StreamError as exc:
        raise _bad(str(exc)) from exc
    return b"".join(pieces)


class _StreamError(Exception):
    """A stream that cannot be read, from whichever library."""


def _check(total: int, received: int, limits: Limits) -> None:
    ratio_limit = max(_RATIO_FLOOR, received * limits.max_compression_ratio)
    if total > min(limits.max_decompressed_bytes, ratio_limit):
        raise MalformedMessage(
            DeadLetterReason.DECOMPRESS_BOMB,
            f"{received} bytes decompress to more than {min(limits.max_decompressed_bytes, ratio_limit)}",
        )


def _bad(detail: str) -> MalformedMessage:
    return MalformedMessage(DeadLetterReason.BAD_COMPRESSION, detail)


def _zlib_pieces(body: bytes) -> Iterator[bytes]:
    stream = zlib.decompressobj()
    data = body
    try:
        while not stream.eof:
            piece = stream.decompress(data, _PIECE)
            data = stream.unconsumed_tail
            if not piece and not data and not stream.eof:
                raise _StreamError("the stream is cut off")
            yield piece
    except zlib.error as exc:
        raise _StreamError(str(exc)) from exc
    _check_rest(stream.unused_data)


def _stream_pieces(stream: _Decompressor, body: bytes) -> Iterator[bytes]:
    data = body
    try:
        while not stream.eof:
            piece = stream.decompress(data, _PIECE)
            if not piece and not data and not stream.eof:
                raise _StreamError("the stream is cut off")
            data = b""
            yield piece
    except (OSError, EOFError, ValueError, lzma.LZMAError) as exc:
        raise _StreamError(str(exc)) from exc
    _check_rest(stream.unused_data)


def _check_rest(rest: bytes) -> None:
    if rest:
        raise _StreamError(f"{len(rest)} bytes follow the stream's end")


def _bz2_pieces(body: bytes) -> Iterator[bytes]:
    return _stream_pieces(bz2.BZ2Decompressor(), body)


def _lzma_pieces(body: bytes) -> Iterator[bytes]:
    return _stream_pieces(lzma.LZMADecompressor(memlimit=_MEMORY_LIMIT), body)


def _zstd_pieces(body: bytes) -> Iterator[bytes]:
    try:
        zstandard = _zstandard()
    except ConfigurationError as exc:
        raise _StreamError(str(exc)) from exc
    stream = zstandard.ZstdDecompressor(max_window_size=_MEMORY_LIMIT).decompressobj()
    try:
        for start in range(0, len(body), _ZSTD_INPUT):
            if stream.eof:
                raise _StreamError(f"{len(body) - start} bytes follow the stream's end")
            yield stream.decompress(body[start : start + _ZSTD_INPUT])
    except zstandard.ZstdError as exc:
        raise _StreamError(str(exc)) from exc
    if not stream.eof:
        raise _StreamError("the stream is cut off")
    _check_rest(stream.unused_data)


_PIECES: dict[str, Callable[[bytes], Iterator[bytes]]] = {
    "application/x-gzip": _zlib_pieces,
    "application/x-bz2": _bz2_pieces,
    "application/x-lzma": _lzma_pieces,
    "application/zstd": _zstd_pieces,
}
