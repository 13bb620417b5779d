"""What is open, what is adopted, what is finished with a lost ack."""

from __future__ import annotations

import pytest

from amqp_tasks.message import ERROR_TIME
from amqp_tasks.worker._again import sent_round
from amqp_tasks.worker._job import first_name, key_of, name_of
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._verdicts import MAX_AGE
from support.fake_deliveries import FakeClock, job_of, key


def test_a_job_is_open_until_it_is_closed() -> None:
    ledger = Ledger(in_flight=10)
    job = job_of("a")
    ledger.open(job)
    assert ledger.count == 1

    assert ledger.close(job) == (job.delivery, False)
    assert ledger.count == 0


def test_a_redelivery_takes_the_place_of_a_stale_delivery() -> None:
    ledger = Ledger(in_flight=10)
    job = job_of("a", epoch=1)
    job.is_acked = True
    ledger.open(job)
    assert ledger.lose(1) == ((key("a"),), ())
    again = job_of("a", epoch=2, redelivered=True)

    stale = job.delivery
    assert ledger.adopt(again) is stale
    assert not job.is_acked
    # The supervisor was told that it is open, so it must hear of its end.
    assert ledger.close(job) == (again.delivery, True)


def test_a_redelivery_on_the_same_channel_is_adopted_once_after_its_consumer_was_cancelled() -> None:
    ledger = Ledger(in_flight=10)
    job, other, acked = job_of("a"), job_of("b", queue_name="other"), job_of("c")
    acked.is_acked = True
    for each in (job, other, acked):
        ledger.open(each)
    stale, again = job.delivery, job_of("a", redelivered=True)

    assert ledger.take_back("work") == ((key("a"),), ())

    assert ledger.adopt(job_of("b", redelivered=True)) is None
    assert ledger.adopt(job_of("c", redelivered=True)) is None
    assert ledger.adopt(again) is stale
    assert ledger.adopt(job_of("a", redelivered=True)) is None
    # The supervisor was told that it is open, so it must hear of its end.
    assert ledger.close(job) == (again.delivery, True)


def test_what_was_acked_just_before_its_consumer_was_cancelled_counts_as_finished() -> None:
    ledger = Ledger(in_flight=10)
    job = job_of("a")
    ledger.open(job)
    ledger.close(job)

    assert ledger.take_back("work") == ((), (key("a"),))
    assert ledger.is_finished(key("a"))


def test_another_message_with_the_same_id_is_not_adopted() -> None:
    ledger = Ledger(in_flight=10)
    ledger.open(job_of("a", epoch=1))

    assert ledger.adopt(job_of("a", epoch=1, redelivered=True)) is None
    assert ledger.adopt(job_of("a", epoch=2, headers={"retries": 1})) is None
    assert ledger.adopt(job_of("b", epoch=2)) is None


def test_what_was_acked_just_before_the_loss_counts_as_finished() -> None:
    ledger = Ledger(in_flight=2)
    for name in ("old", "x", "y"):
        job = job_of(name)
        ledger.open(job)
        ledger.close(job)
    assert not ledger.is_finished(key("y"))

    assert ledger.lose(1) == ((), (key("x"), key("y")))

    assert [ledger.is_finished(key(name)) for name in ("old", "x", "y")] == [False, True, True]


def test_what_is_settled_after_the_loss_is_lost_and_finished() -> None:
    ledger = Ledger(in_flight=2)
    job = job_of("a", epoch=3)
    ledger.open(job)
    ledger.lose(3)

    assert ledger.close(job) == (job.delivery, True)
    assert ledger.is_finished(key("a"))


def test_a_retry_has_a_key_of_its_own() -> None:
    assert len({key_of("a", retries, queue_name="work") for retries in range(3)}) == 3


def test_a_dead_letter_that_is_moved_back_as_it_lies_there_has_a_key_of_its_own_which_its_copies_keep() -> (
    None
):
    first = job_of("a", message_id="m")
    moved = [job_of("a", message_id="m", headers={ERROR_TIME: f"2026-11-2{day}"}) for day in (1, 2)]
    copy = job_of("a", message_id="m", headers=sent_round(moved[0], 5.0).properties.headers)

    assert len({each.key for each in (first, *moved)}) == 3
    assert copy.key == moved[0].key
    assert {each.name for each in (first, *moved)} == {"a"}


def test_another_message_of_the_same_id_has_a_key_of_its_own_which_logs_do_not_show() -> None:
    keys = [
        key_of("a", 2, 1, queue_name=queue_name, message_id=message_id)
        for queue_name in ("work", "all.b")
        for message_id in ("m", "n" * 255, None)
    ]

    assert len(set(keys)) == 6
    assert {name_of(each) for each in keys} == {"a retry 2 snooze 1"}
    assert {first_name(each) for each in keys} == {"a"}


@pytest.mark.parametrize("is_cancelled", [False, True])
def test_what_was_acked_long_before_the_loss_does_not_count_as_finished(is_cancelled: bool) -> None:
    """A nightly run has the same id each time: the next one would be taken for done."""
    clock = FakeClock()
    ledger = Ledger(in_flight=10, clock=clock)
    for name in ("nightly", "just now"):
        ledger.open(job := job_of(name))
        ledger.close(job)
        clock.seconds += MAX_AGE - 1

    _, maybe_lost = ledger.take_back("work") if is_cancelled else ledger.lose(1)

    assert maybe_lost == (key("just now"),)
    assert not ledger.is_finished(key("nightly"))
    assert ledger.is_finished(key("just now"))
