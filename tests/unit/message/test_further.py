"""AMQP properties of the caller's own."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from amqp_tasks.message import Properties, check_further_properties, further_properties


def test_only_what_a_message_has_is_told() -> None:
    properties = Properties(correlation_id="1", reply_to="r", message_id="m", timestamp=0)

    assert further_properties(properties) == {"message_id": "m", "timestamp": 0}


@pytest.mark.parametrize(
    "given", [1_700_000_000, datetime(2023, 11, 14, 23, 13, 20, 999, timezone(timedelta(hours=1)))]
)
def test_a_timestamp_is_sent_in_whole_seconds(given: Any) -> None:
    assert check_further_properties({"timestamp": given}) == {"timestamp": 1_700_000_000}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"user_id": ""}, "user_id must be text of 1 to 255 bytes"),
        ({"app_id": "é" * 128}, "app_id .* takes 256 bytes"),
        ({"type": "\ud800"}, "type .* cannot be written as UTF-8"),
        ({"timestamp": -1}, "timestamp must be a time since 1970"),
        ({"timestamp": 2**63}, "timestamp must be a time since 1970"),
        ({"timestamp": datetime(1969, 12, 31, tzinfo=UTC)}, "timestamp must be a time since 1970"),
    ],
)
def test_what_amqp_cannot_hold_is_named(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_further_properties(given)
