"""The wire protocol page names what the code writes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from amqp_tasks.message import DeadLetterReason, Limits, Properties, dead_letter
from amqp_tasks.message._headers import PROTOCOL_HEADERS
from amqp_tasks.serialization import _compression

PAGE = (Path(__file__).parents[3] / "docs/reference/wire-protocol.md").read_text()


def test_every_reason_is_in_the_table_and_no_other() -> None:
    table = PAGE.partition("| reason | meaning |")[2].partition("\n\n")[0]

    assert set(re.findall(r"^\| `([a-z-]+)`", table, re.MULTILINE)) == set(DeadLetterReason)


def test_every_error_header_is_in_the_page_and_no_other() -> None:
    message = dead_letter(
        queue_name="q", exchange="", routing_key="q", properties=Properties(user_id="u", headers={"CC": []}), body=b"",
        reason="failed", detail="d", error_type="E", traceback="t", attempts=1, worker="w",
    )  # fmt: skip

    assert set(re.findall(r"`(x-error-[a-z-]+)`", PAGE)) == set(message.properties.headers)


@pytest.mark.parametrize("header", sorted(PROTOCOL_HEADERS))
def test_every_protocol_header_is_described(header: str) -> None:
    assert f"`{header}`" in PAGE


@pytest.mark.parametrize("name", sorted(_compression._TYPES.items()))
def test_every_compression_method_is_described(name: tuple[str, str]) -> None:
    assert all(f"`{text}`" in PAGE for text in name)


def test_the_limits_are_the_defaults() -> None:
    limits = Limits()

    for text in (
        f"{limits.max_message_bytes >> 20} MiB", f"{limits.max_decompressed_bytes >> 20} MiB",
        f"| {limits.max_compression_ratio} |", f"| {limits.max_depth} |", f"| {limits.max_int_digits:,} |",
    ):  # fmt: skip
        assert text in PAGE
