"""What a process counts, and what of it is due to be told."""

from __future__ import annotations

import os

import pytest

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import CountReport, JournalEntry, OutgoingMessage, read_counts, read_journal_entry
from amqp_tasks.transport._tally import Tally
from support.fake_deliveries import FakeClock


def said(message: OutgoingMessage | None) -> CountReport:
    assert message is not None
    assert not message.mandatory
    report = read_counts(read_journal_entry(message.body))
    assert report is not None
    return report


def test_a_report_holds_for_all_that_came_before_it() -> None:
    tally = Tally(FakeClock())
    tally.add("accepted")
    first = said(tally.report())
    tally.add("accepted")
    tally.add("done")
    second = said(tally.report())

    assert (first.of, first.number, first.is_last) == (second.of, 1, False)
    assert second.number == 2
    assert second.counts == {
        "accepted": 2, "unknown": 0, "done": 1, "failed": 0, "revoked": 0, "expired": 0,
    }  # fmt: skip


def test_nothing_new_is_not_told_but_as_the_last_word() -> None:
    tally = Tally(FakeClock())
    assert tally.report(is_last=True) is None
    tally.add("accepted")
    assert tally.report() is not None

    assert tally.report() is None
    assert said(tally.report(is_last=True)).is_last


def test_a_report_that_was_not_stored_is_due_again() -> None:
    tally = Tally(FakeClock())
    tally.add("done")
    tally.report()
    tally.repeat()

    assert said(tally.report()).number == 2


def test_a_forked_child_counts_anew_under_another_name() -> None:
    tally = Tally(FakeClock())
    tally.add("accepted")
    before = said(tally.report())
    tally.renew()
    assert tally.report() is None
    tally.add("done")

    after = said(tally.report())
    assert after.of != before.of
    assert after.counts["accepted"] == 0


@pytest.mark.parametrize(
    "facts",
    [
        {},
        {"of": "a", "number": "1", "is_last": False, "counts": {}},
        {"of": "a", "number": 1, "is_last": 0, "counts": {}},
        {"of": 1, "number": 1, "is_last": False, "counts": {}},
        {"of": "a", "number": 1, "is_last": False, "counts": {"done": -1}},
        {"of": "a", "number": 1, "is_last": False, "counts": {"done": True}},
    ],
    ids=str,
)
def test_what_is_no_report_is_refused(facts: dict[str, object]) -> None:
    entry = JournalEntry(kind="counts", id="x", time=0.0, sender=str(os.getpid()), facts=facts)

    with pytest.raises(MalformedMessage):
        read_counts(entry)


def test_an_entry_of_another_kind_is_no_report() -> None:
    assert read_counts(JournalEntry(kind="mark", id="x", time=0.0, sender="s", facts={})) is None
