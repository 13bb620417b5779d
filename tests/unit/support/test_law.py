"""The law that is held against what the processes of a fault test have told."""

from __future__ import annotations

from pathlib import Path

import pytest

from support import Ledger
from support.law import Law


def told(folder: Path, *lines: tuple[str, str]) -> Law:
    ledger = Ledger(folder / "law")
    for event, key in lines:
        ledger.record(event, key)
    return Law(ledger)


@pytest.mark.parametrize("end", ["ended", "answered", "taken", "revoked"])
def test_what_was_accepted_and_has_an_end_or_a_place_keeps_the_law(tmp_path: Path, end: str) -> None:
    told(tmp_path, ("sending", "a"), ("accepted", "a"), (end, "a")).judge(None)


def test_what_was_accepted_and_is_nowhere_breaks_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"^lost: 1: \['a'\]"):
        told(tmp_path, ("sending", "a"), ("accepted", "a")).judge(None)


@pytest.mark.parametrize("place", ["ended", "taken"])
def test_what_was_refused_and_is_somewhere_breaks_it(tmp_path: Path, place: str) -> None:
    with pytest.raises(AssertionError, match=r"^unexpected: 1: \['a'\]"):
        told(tmp_path, ("sending", "a"), ("refused", "a"), (place, "a")).judge(None)


def test_what_nobody_sent_breaks_it(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match=r"^unexpected: 1: \['a'\]"):
        told(tmp_path, ("ended", "a")).judge(None)


@pytest.mark.parametrize("event", ["unknown", "put", "sending"])
@pytest.mark.parametrize("is_there", [True, False])
def test_what_may_have_been_stored_may_be_there_or_not(tmp_path: Path, event: str, is_there: bool) -> None:
    end = [("taken", "a")] if is_there else []
    told(tmp_path, ("sending", "a"), (event, "a"), *end).judge(None)


def test_a_loss_that_is_documented_must_be_one(tmp_path: Path) -> None:
    told(tmp_path, ("sending", "a"), ("accepted", "a")).judge(None, loses=["a"])
    with pytest.raises(AssertionError, match="not lost"):
        told(tmp_path, ("sending", "b"), ("accepted", "b"), ("ended", "b")).judge(None, loses=["b"])


def test_a_test_answers_for_what_was_told_since_the_last_one(tmp_path: Path) -> None:
    law = told(tmp_path, ("sending", "a"), ("accepted", "a"))
    with pytest.raises(AssertionError):
        law.judge(None)

    law.judge(None)


def test_a_step_that_is_told_of_and_was_never_sent_is_no_task_of_nobody(tmp_path: Path) -> None:
    told(tmp_path, ("answered", "not run")).judge(None)
