"""What the reports of a fault run add up to."""

from __future__ import annotations

import pytest

from support.conservation import Outcome
from support.ledger import Entry
from support.reckoning import reckon


def said(*reports: str) -> list[Entry]:
    """Entries from `SECOND EVENT KEY [NOTE]`."""
    found: list[Entry] = []
    for report in reports:
        at, event, key, *note = report.split()
        found.append(Entry(event=event, key=key, pid=1, at=float(at), note=" ".join(note)))
    return found


ONE = ("0 submit a", "1 accepted a", "2 start a id-1", "3 done a id-1")


def outcome(*reports: str, dead: tuple[str, ...] = (), queued: tuple[str, ...] = ()) -> Outcome:
    return reckon(said(*reports), dead=dict.fromkeys(dead, "why"), queued=queued)


def test_what_was_accepted_and_ran_once_is_lawful() -> None:
    seen = outcome(*ONE)

    seen.check()
    assert seen.slowest_submit == 1.0
    assert seen.duplicates == set()


@pytest.mark.parametrize(
    ("reports", "breach"),
    [
        (("0 submit a", "1 accepted a"), "lost"),
        (("2 start a id-1", "3 done a id-1"), "unexpected"),
        (("0 submit a", "1 refused a NotSent", "2 start a id-1", "3 done a id-1"), "unexpected"),
        (("0 submit a",), "neither accepted nor refused"),
        ((*ONE, "4 start a id-1", "5 done a id-1"), "untouched"),
        ((*ONE, "9 fault f", "9 fault-over f", "9 start a id-1", "10 done a id-1"), "untouched"),
        ((*ONE, "2 fault f", "2 fault-over f", "4 start a id-2"), "several ids"),
    ],
)
def test_a_breach_of_the_law_is_named(reports: tuple[str, ...], breach: str) -> None:
    with pytest.raises(AssertionError, match=breach):
        outcome(*reports).check()


@pytest.mark.parametrize("where", ["dead", "queued"])
def test_what_did_not_run_may_be_kept(where: str) -> None:
    outcome("0 submit a", "1 accepted a", **{where: ("a",)}).check()


def test_a_fault_while_it_ran_allows_a_second_run() -> None:
    seen = outcome(*ONE, "2.5 fault f", "2.6 fault-over f", "4 start a id-1", "5 done a id-1")

    seen.check()
    assert seen.duplicates == {"a"}
    assert seen.pause_after_return == pytest.approx(1.4)


def test_a_task_that_killed_its_process_explains_a_second_run_of_its_neighbour() -> None:
    killer = ("2 submit k", "2.1 accepted k", "3.5 start k id-k")

    outcome(*ONE, *killer, "4 start a id-1", "5 done a id-1", dead=("k",)).check()


def test_an_unknown_call_may_have_run_or_not() -> None:
    outcome(
        "0 submit a", "1 unknown a SendUnknown", "0 submit b", "1 unknown b SendUnknown", "2 done b"
    ).check()


def test_a_pause_without_an_end_is_infinite() -> None:
    assert outcome(*ONE, "4 fault f", "5 fault-over f").pause_after_return == float("inf")
