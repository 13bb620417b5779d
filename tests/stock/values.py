"""Values that must come back equal from the other side."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Any

__all__ = ("VALUES",)

VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    2**63,
    -(10**40),
    0.1,
    -1.5e300,
    "",
    "Grüße an 東京 🐇 \x00\x1b[31m \u2028 \"quoted\\\" 'too'",
    "a" * 200_000,
    [],
    {},
    [1, "two", None, [3.0, [False, {"deep": [{}]}]]],
    {"": None, "ключ": {"nested": [1, {"x": [True]}]}, "__type__": "not a wrapper"},
    datetime(2026, 11, 20, 23, 4, 45, 672198, tzinfo=UTC),
    datetime(2026, 3, 29, 2, 30, tzinfo=timezone(timedelta(hours=-9, minutes=-30))),
    datetime(1, 1, 1, 0, 0),  # noqa: DTZ001 - naive on purpose: it must stay so
    date(2028, 2, 29),
    time(23, 59, 59, 999999),
    Decimal("-123456789012345678901234567890.0000001"),
    uuid.UUID("12345678-1234-5678-1234-567812345678"),
    b"",
    b"plain bytes",
    b"\xff\xfe\x00\x80",
    {"mixed": [Decimal("0.10"), {"at": date(2026, 1, 1)}, b"\x00"]},
)
