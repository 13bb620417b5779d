"""What is made of the journal's entries, and how long it is remembered."""

from __future__ import annotations

import logging
import signal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from amqp_tasks.message import JournalEntry
from amqp_tasks.worker._job import key_of
from amqp_tasks.worker._journal import JournalState
from amqp_tasks.worker._revocations import Revocations
from amqp_tasks.worker._termination import termination_in
from support.fake_deliveries import FakeClock

DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def revocations(clock: FakeClock) -> Revocations:
    return Revocations(max_age=DAY, clock=clock, maximum=3)


def entry(clock: FakeClock, kind: str, ids: Any, *, age: float = 0.0) -> JournalEntry:
    facts = {"ids": ids, "terminate": False, "signal": "SIGTERM"}
    return JournalEntry(kind=kind, id="e", time=clock.seconds - age, sender="test", facts=facts)


def revoked(revocations: Revocations, ids: Sequence[str]) -> list[str]:
    return [each for each in ids if revocations.has(each)]


def test_the_last_word_counts(revocations: Revocations, clock: FakeClock) -> None:
    state = JournalState((revocations,))

    passed_on = state.learn(
        [
            entry(clock, "revoke", ["a", "b"]),
            entry(clock, "unrevoke", ["a", "never"]),
            entry(clock, "revoke", ["c"]),
        ]
    )

    assert revoked(revocations, "abc") == ["b", "c"]
    assert [each.kind for each in passed_on] == ["revoke", "unrevoke", "revoke"]


def test_the_oldest_are_forgotten_beyond_the_maximum(revocations: Revocations, clock: FakeClock) -> None:
    for each in "abcd":
        revocations.apply(entry(clock, "revoke", [each]))
    revocations.apply(entry(clock, "revoke", ["b", "e"]))

    assert revoked(revocations, "abcde") == ["b", "d", "e"]


def test_they_end_with_their_age(revocations: Revocations, clock: FakeClock) -> None:
    revocations.apply(entry(clock, "revoke", ["ancient"], age=DAY + 1))
    revocations.apply(entry(clock, "revoke", ["old"], age=DAY - 10))
    revocations.apply(entry(clock, "revoke", ["from a clock ahead"], age=-DAY))

    assert revoked(revocations, ["ancient", "old", "from a clock ahead"]) == ["old", "from a clock ahead"]
    clock.seconds += 11
    assert revoked(revocations, ["old", "from a clock ahead"]) == ["from a clock ahead"]
    clock.seconds += DAY
    assert revoked(revocations, ["from a clock ahead"]) == []


def test_a_new_process_is_told_all(clock: FakeClock) -> None:
    known, told = (Revocations(max_age=DAY, clock=clock) for _ in range(2))
    ids = [f"id-{number}" for number in range(1001)]
    known.apply(entry(clock, "revoke", ids, age=10))
    known.apply(entry(clock, "unrevoke", ids[:1]))

    entries = JournalState((known,)).for_a_new_process()
    JournalState((told,)).learn(entries)

    assert len(entries) == 2
    assert revoked(told, ids) == ids[1:]
    clock.seconds += DAY - 9
    assert revoked(told, ids) == []


def test_what_is_unknown_or_malformed_is_passed_over_with_one_warning(
    revocations: Revocations, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    state = JournalState((revocations,))
    strange = [
        entry(clock, "revoke", [1]),
        entry(clock, "from-the-future", []),
        entry(clock, "unrevoke", "a"),
    ]

    with caplog.at_level(logging.WARNING):
        passed_on = state.learn([*strange, entry(clock, "revoke", ["a"])])

    assert [each.facts["ids"] for each in passed_on] == [["a"]]
    assert revoked(revocations, "a") == ["a"]
    assert len(caplog.records) == 1


def test_what_is_to_be_terminated_is_known_by_the_keys_of_its_runs(
    revocations: Revocations, clock: FakeClock
) -> None:
    wish = entry(clock, "revoke", ["a", "b retry 2", "c\n"])
    revocations.apply(replace(wish, facts={**wish.facts, "terminate": True}))
    revocations.apply(entry(clock, "unrevoke", ["none"]))

    keys = [
        key_of("a", 0, queue_name="work"),
        key_of("a", 3, 1, queue_name="work"),
        key_of("b retry 2", 0, queue_name="work"),
        key_of("b retry 2", 1, queue_name="work"),
        key_of("c\n", 2, queue_name="work"),
    ]
    assert [revocations.is_terminated(key) for key in keys] == [True] * 5
    assert not revocations.is_terminated(key_of("b", 0, queue_name="work"))
    revocations.apply(entry(clock, "revoke", ["a"]))
    revocations.apply(entry(clock, "unrevoke", ["c\n"]))
    assert [revocations.is_terminated(key) for key in keys] == [False, False, True, True, False]


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"terminate": True, "signal": "SIGINT"}, signal.SIGINT),
        ({"terminate": True, "signal": "SIGOFANOTHERSYSTEM"}, signal.SIGTERM),
        ({"terminate": True, "signal": ["SIGINT"]}, signal.SIGTERM),
        ({"terminate": False, "signal": "SIGINT"}, None),
        ({}, None),
    ],
)
def test_what_an_entry_says_of_running_tasks(
    clock: FakeClock, facts: dict[str, Any], expected: signal.Signals | None
) -> None:
    wish = termination_in(replace(entry(clock, "revoke", ["a"]), facts={"ids": ["a"], **facts}))

    assert (wish.signal if wish else None) == expected


def test_a_termination_of_another_type_is_refused_as_a_whole(
    revocations: Revocations, clock: FakeClock
) -> None:
    wrong = replace(entry(clock, "revoke", ["a"]), facts={"ids": ["a"], "terminate": "no"})

    assert JournalState((revocations,)).learn([wrong]) == []

    assert not revocations.has("a")
