"""Random messages: each one has run or lies among the dead letters, byte for byte, and none is missing."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from support import Ledger, RawClient, eventually
from support.hostile import JSON, good_headers
from support.worker_app import QUEUE

DEAD = f"{QUEUE}.dead"
MESSAGES = 300
# Not `expires`: a time in the past would rightly end a message without a trace.
NAMES = (
    "task",
    "id",
    "retries",
    "timelimit",
    "eta",
    "group",
    "root_id",
    "compression",
    "ignore_result",
    "x-death",
)
TYPES = ("application/json", "application/x-msgpack", "text/plain", "", None)
METHODS = ("application/x-gzip", "application/x-bz2", "application/x-lzma", "application/zstd", "?")


@pytest.fixture(scope="module", params=["prefork", "threads", "solo"])
def pool(request: pytest.FixtureRequest) -> str:
    """Every pool has its own way to a task."""
    return str(request.param)


class Fuzzer:
    """Messages from one seed."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def text(self) -> str:
        letters = string.printable + "äß\u202e\x00\x1b東🐇"
        return "".join(self.random.choices(letters, k=self.random.randrange(40)))

    def value(self, depth: int = 3) -> Any:
        makers: list[Callable[[], Any]] = [
            self.text,
            lambda: self.random.randrange(-(2**63), 2**63),
            lambda: self.random.random() < 0.5,
            lambda: None,
            lambda: self.random.randbytes(self.random.randrange(20)),
            lambda: Decimal(self.random.randrange(10**6)) / 100,
            lambda: datetime.fromtimestamp(self.random.randrange(2**31), UTC),
        ]
        if depth:
            makers.append(lambda: [self.value(depth - 1) for _ in range(self.random.randrange(4))])
            makers.append(
                lambda: {self.text(): self.value(depth - 1) for _ in range(self.random.randrange(4))}
            )
        return self.random.choice(makers)()

    def headers(self) -> dict[str, Any]:
        found = good_headers() if self.random.random() < 0.7 else {}
        for _ in range(self.random.randrange(4)):
            name = self.random.choice(NAMES) if self.random.random() < 0.5 else self.text()
            found[name] = self.value()
        if self.random.random() < 0.2:
            found["compression"] = self.random.choice(METHODS)
        return found

    def body(self, number: int) -> bytes:
        good = b'[["fuzz-%d"], {}, {"callbacks": null, "chain": []}]' % number
        choice = self.random.random()
        if choice < 0.2:
            return good
        if choice < 0.4:
            return self.random.randbytes(self.random.randrange(200))
        mutated = bytearray(good)
        for _ in range(self.random.randrange(1, 4)):
            mutated[self.random.randrange(len(mutated))] = self.random.randrange(256)
        return bytes(mutated[: self.random.randrange(len(mutated))] if choice < 0.6 else mutated)

    def properties(self) -> dict[str, Any]:
        found: dict[str, Any] = (
            dict(JSON) if self.random.random() < 0.8 else {"content_type": self.random.choice(TYPES)}
        )
        for name in ("correlation_id", "reply_to", "type", "app_id", "message_id", "content_encoding"):
            if self.random.random() < 0.1:
                found[name] = f"no-queue-{self.text()}"
        if self.random.random() < 0.2:
            found["priority"] = self.random.randrange(256)
        return found


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_promise_8_and_20_random_messages_are_all_accounted_for(
    raw_client: RawClient, neighbours: Callable[[], None], ledger: Ledger, seed: int
) -> None:
    fuzzer = Fuzzer(seed)
    sent: Counter[bytes] = Counter()
    ran_before = len(_strangers(ledger))
    for number in range(MESSAGES):
        body = fuzzer.body(number)
        raw_client.publish(QUEUE, body, fuzzer.headers(), **fuzzer.properties())
        sent[body] += 1
        if number % 50 == 0:
            neighbours()

    def accounted() -> None:
        ran = len(_strangers(ledger)) - ran_before
        depth = raw_client.depth(DEAD)
        assert depth + ran == MESSAGES, f"seed {seed}: {depth} dead and {ran} run of {MESSAGES}"

    eventually(accounted, within=20)
    dead = raw_client.drain(DEAD)
    bodies = Counter(message.body for message in dead)

    assert bodies <= sent
    assert (sent - bodies).total() == len(_strangers(ledger)) - ran_before > 0
    assert all(message.headers["x-error-reason"] and message.headers["x-error-message"] for message in dead)


def _strangers(ledger: Ledger) -> list[str]:
    return [key for key in ledger.keys("done") if not key.startswith("neighbour-")]
