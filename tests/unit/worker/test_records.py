"""Records in shared memory, read by another process than the one that wrote them."""

from __future__ import annotations

import os
import signal
import warnings

from amqp_tasks.worker._job import key_of, run_name
from amqp_tasks.worker._records import MAX_KEY, RecordTable


def test_records_of_a_killed_process_can_be_read() -> None:
    table = RecordTable(processes=2, slots=3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if not pid:
        mine = table.of_process(1)
        mine.mark(0, "first")
        mine.mark(2, "ünï-" + "x" * 200)
        mine.mark(1, "over")
        mine.clear(1)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)

    assert table.of_process(1).running() == ("first", "ünï-" + "x" * 200)
    assert table.of_process(0).running() == ()


def test_a_reset_clears_all_slots() -> None:
    records = RecordTable(processes=1, slots=2).of_process(0)
    records.mark(0, "a")
    records.mark(1, "b")

    records.limit(0, 5.0)

    records.reset()

    assert (records.running(), records.overdue(6.0)) == ((), ())


def test_a_free_slot_is_marked_again_with_what_it_ran_last_while_that_is_open() -> None:
    records = RecordTable(processes=1, slots=4).of_process(0)
    for slot, key in enumerate(["open", "settled", "runs"]):
        records.mark(slot, key)
    records.clear(0)
    records.clear(1)

    records.reclaim({"open"}.__contains__)

    assert records.running() == ("open", "runs")


def test_a_slot_that_has_run_nothing_yet_is_not_marked_with_what_the_process_before_ran() -> None:
    """The redelivery of what ended that process is open here while it is given up, and no slot runs it."""
    records = RecordTable(processes=1, slots=1).of_process(0)
    records.mark(0, "killer")
    records.reset()

    records.reclaim({"killer"}.__contains__)

    assert records.running() == ()


def test_a_task_that_runs_and_was_the_last_one_of_a_free_slot_too_is_charged_once() -> None:
    """Its id was sent again, or it went back to its queue and has come again."""
    records = RecordTable(processes=1, slots=2).of_process(0)
    records.mark(0, "again")
    records.clear(0)
    records.mark(1, "again")

    records.reclaim({"again"}.__contains__)

    assert records.running() == ("again",)


def test_a_run_is_overdue_from_its_time_on() -> None:
    records = RecordTable(processes=2, slots=2).of_process(1)
    records.mark(0, "free")
    records.mark(1, "limited")
    records.limit(1, 5.0)

    assert (records.overdue(4.9), records.overdue(5.0)) == ((), ("limited",))
    # The slot may be through while another still answers for the run.
    records.clear(1)
    assert (records.overdue(5.0), records.running()) == (("limited",), ("free", "limited"))
    records.limit(1, 0.0)
    assert records.overdue(5.0) == ()


def test_what_its_slot_answers_for_is_running_and_cannot_be_terminated() -> None:
    records = RecordTable(processes=1, slots=2).of_process(0)
    records.mark(0, "ended")
    records.mark(1, "runs")

    records.answer(0)

    assert (records.running(), records.terminable()) == (("ended", "runs"), ("runs",))
    records.clear(0)
    records.mark(0, "next")
    assert records.terminable() == ("next", "runs")
    # As above: another answers for it, and its process may hang.
    records.limit(1, 5.0)
    records.clear(1)
    assert records.terminable() == ("next", "runs")


def test_the_longest_key_fits() -> None:
    records = RecordTable(processes=1, slots=1).of_process(0)
    key = "x" * 255 + " retry 123456789"

    records.mark(0, key)

    assert len(key) <= MAX_KEY
    assert records.running() == (key,)


def test_a_record_that_is_being_written_names_nothing() -> None:
    table = RecordTable(processes=1, slots=1)
    records = table.of_process(0)
    records.mark(0, "ü")
    # One of its two bytes is already another id's.
    table._memory[12] = ord("x")

    assert records.running() == ()


def test_keys_forge_no_log_lines_and_fit_whatever_the_id() -> None:
    hostile = "\n" * 255
    key = key_of(hostile, 4, queue_name="work")
    longest = key_of("i" * 255, 2**31, 2**31, queue_name="q" * 255, message_id="m")

    assert len(longest) <= MAX_KEY
    assert key.isprintable()
    assert len(key) <= MAX_KEY
    assert key != key_of("\n" * 254, 4, queue_name="work")
    assert run_name("plain") == "plain"
