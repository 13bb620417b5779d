"""Compressed bodies: kombu's names, within limits."""

from __future__ import annotations

import bz2
import importlib
import lzma
import sys
import tracemalloc
import zlib
from typing import Any

import pytest

from amqp_tasks.errors import ConfigurationError, MalformedMessage
from amqp_tasks.serialization import DEFAULT_LIMITS, Limits, compress, compression_type, decompress

kombu_compression: Any = importlib.import_module("kombu.compression")

METHODS = ["zlib", "bzip2", "lzma", "zstd"]
BODY = bytes(range(256)) * 40


@pytest.mark.parametrize("method", METHODS)
def test_every_method_round_trips(method: str) -> None:
    compressed, header = compress(BODY, method)

    assert len(compressed) < len(BODY)
    assert decompress(compressed, header) == BODY


@pytest.mark.parametrize("method", ["zlib", "gzip", "bzip2", "bzip", "lzma", "xz"])
def test_kombu_reads_ours_and_we_read_its(method: str) -> None:
    ours, our_header = compress(BODY, method)
    theirs, their_header = kombu_compression.compress(BODY, method)

    assert our_header == their_header
    assert kombu_compression.decompress(ours, our_header) == BODY
    assert decompress(theirs, their_header) == BODY


@pytest.mark.parametrize("method", METHODS)
def test_an_empty_body_round_trips(method: str) -> None:
    assert decompress(*compress(b"", method)) == b""


@pytest.mark.parametrize("method", METHODS)
def test_a_bomb_is_refused_before_it_is_in_memory(method: str) -> None:
    bomb, header = compress(bytes(256 * 1024 * 1024), method)

    tracemalloc.start()
    try:
        with pytest.raises(MalformedMessage) as caught:
            decompress(bomb, header)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert caught.value.reason == "decompress-bomb"
    assert peak < 128 * 1024 * 1024


@pytest.mark.parametrize("method", METHODS)
def test_the_byte_limit_holds_where_the_ratio_is_modest(method: str) -> None:
    body, header = compress(BODY * 100, method)

    with pytest.raises(MalformedMessage) as caught:
        decompress(body, header, limits=Limits(max_decompressed_bytes=len(BODY) * 100 - 1))

    assert caught.value.reason == "decompress-bomb"
    assert (
        len(decompress(body, header, limits=Limits(max_decompressed_bytes=len(BODY) * 100)))
        == len(BODY) * 100
    )


@pytest.mark.parametrize("method", METHODS)
def test_small_repetitive_bodies_are_no_bombs(method: str) -> None:
    body, header = compress(b"a" * 1_000_000, method)

    assert len(decompress(body, header)) / len(body) > DEFAULT_LIMITS.max_compression_ratio


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("damage", ["cut", "flip", "follow", "empty", "text"])
def test_a_damaged_stream_is_bad_compression(method: str, damage: str) -> None:
    good, header = compress(BODY, method)
    body = {
        "cut": good[:-5],
        "flip": b"\x00\x01\x02" + good[3:],
        "follow": good + b"more",
        "empty": b"",
        "text": b"[[], {}, {}]",
    }[damage]

    with pytest.raises(MalformedMessage) as caught:
        decompress(body, header)

    assert caught.value.reason == "bad-compression"


def test_an_lzma_dictionary_of_gigabytes_is_refused() -> None:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 0, "dict_size": 1 << 30}]
    stream = bytearray(lzma.compress(b"x" * 100, filters=[{"id": lzma.FILTER_LZMA2, "preset": 0}]))
    raw = lzma.LZMACompressor(format=lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "preset": 0}])
    alone = bytearray(raw.compress(b"x" * 100) + raw.flush())
    alone[1:5] = filters[0]["dict_size"].to_bytes(4, "little")
    assert decompress(bytes(stream), "lzma") == b"x" * 100

    with pytest.raises(MalformedMessage) as caught:
        decompress(bytes(alone), "lzma")

    assert caught.value.reason == "bad-compression"


@pytest.mark.parametrize("method", ["", "snappy", "application/x-brotli", "\x1b[31m"])
def test_an_unknown_method_in_a_message_is_bad_compression(method: str) -> None:
    with pytest.raises(MalformedMessage) as caught:
        decompress(zlib.compress(b"x"), method)

    assert caught.value.reason == "bad-compression"
    assert caught.value.detail.isprintable()


def test_an_unknown_method_in_the_configuration_lists_the_known() -> None:
    with pytest.raises(ConfigurationError, match=r"unknown compression 'snappy'; known: bzip, bzip2"):
        compress(b"", "snappy")


def test_zstd_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    body, header = compress(BODY, "zstd")
    monkeypatch.setitem(sys.modules, "zstandard", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'amqp-tasks\[zstd\]'"):
        compression_type("zstd")
    with pytest.raises(MalformedMessage, match=r"bad-compression: .*amqp-tasks\[zstd\]"):
        decompress(body, header)


def test_two_streams_in_a_row_are_refused() -> None:
    with pytest.raises(MalformedMessage, match="follow the stream's end"):
        decompress(bz2.compress(b"a") + bz2.compress(b"b"), "bzip2")
