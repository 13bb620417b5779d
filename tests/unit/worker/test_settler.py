"""Outcomes are confirmed before the delivery is settled; what fails is tried again, what cannot be sent is said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from amqp_tasks.backends.disabled import DisabledBackend
from amqp_tasks.errors import (
    BrokerBlocked,
    EncodeError,
    MessageTooLarge,
    NotSent,
    PublishNacked,
    UnroutableError,
)
from amqp_tasks.message import OutgoingMessage, Properties, ResultRecord, State
from amqp_tasks.transport import Delivery, Settlement
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._settler import MAX_PAUSE, Settler, SettlerParts
from support.fake_deliveries import FakeDelivery, job_of

Report = Callable[[Exception | None], None]


class Backend(DisabledBackend):
    """Keeps what is to be stored until the test decides."""

    def __init__(self) -> None:
        self.stored: list[tuple[ResultRecord, Report]] = []
        self.refuses: list[Exception] = []

    def store_nowait(
        self, record: ResultRecord, *, reply_to: str, correlation_id: str, on_stored: Report
    ) -> None:
        if self.refuses:
            raise self.refuses.pop(0)
        self.stored.append((record, on_stored))


@dataclass
class Door:
    """The part of a transport that a settler uses."""

    sent: list[tuple[OutgoingMessage, Report]] = field(default_factory=list)

    def publish_nowait(self, message: OutgoingMessage, on_outcome: Report) -> None:
        self.sent.append((message, on_outcome))


@dataclass
class Settled:
    log: list[tuple[Delivery, Settlement]] = field(default_factory=list)
    is_flushed: bool = False

    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        self.log.append((delivery, settlement))
        self.is_flushed = False

    def flush(self, *, timeout: float) -> None:
        self.is_flushed = True


@dataclass
class Told:
    finished: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def ask(self, task_ids: Sequence[str], on_answer: Any) -> None:
        raise AssertionError("not here")

    def tell_open(self, task_ids: Sequence[str]) -> None:
        raise AssertionError("not here")

    def tell_finished(self, task_ids: Sequence[str]) -> None:
        self.finished.extend(task_ids)

    def tell_refused(self, task_ids: Sequence[str]) -> None:
        self.refused.extend(task_ids)


class Fixture:
    def __init__(self) -> None:
        self.backend, self.door, self.consumer, self.told = Backend(), Door(), Settled(), Told()
        self.ledger = Ledger(in_flight=10)
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.kept: list[tuple[str, Exception, str | None]] = []
        self.ended: list[tuple[str, Exception, ResultRecord]] = []
        self.counted: list[str] = []
        self.settler = Settler(
            SettlerParts(
                transport=self.door,  # type: ignore[arg-type]  # only what a settler uses
                backend=self.backend,
                ledger=self.ledger,
                verdicts=self.told,
                call_later=lambda delay, callback: self.later.append((delay, callback)),
                on_settled=lambda: None,
                count=self.counted.append,
                keep=lambda job, error, traceback: self.kept.append((job.name, error, traceback)),
                end_instead=lambda job, error, record: self.ended.append((job.name, error, record)),
            )
        )
        self.settler.consumer = self.consumer  # type: ignore[assignment]  # only what a settler uses
        self.job = job_of("a", reply_to="reply")
        self.ledger.open(self.job)

    @property
    def settlements(self) -> list[Settlement]:
        return [settlement for _, settlement in self.consumer.log]


@pytest.fixture
def it() -> Fixture:
    return Fixture()


RECORD = ResultRecord(task_id="a", status=State.SUCCESS, result=4)


def test_the_ack_follows_the_confirmed_result(it: Fixture) -> None:
    it.settler.store(it.job, RECORD)
    assert it.settlements == []

    it.backend.stored[0][1](None)

    assert it.settlements == [Settlement.ACK]
    assert it.ledger.count == 0


def test_a_result_that_is_not_stored_is_stored_again_with_growing_pauses(it: Fixture) -> None:
    it.settler.store(it.job, RECORD)
    pauses = []
    for _ in range(10):
        it.backend.stored.pop()[1](BrokerBlocked("alarm"))
        pause, again = it.later.pop()
        pauses.append(pause)
        again()
    it.backend.stored.pop()[1](None)

    assert pauses == sorted(pauses)
    assert pauses[0] < pauses[1]
    assert pauses[-1] == MAX_PAUSE
    assert it.settlements == [Settlement.ACK]


def test_a_result_that_its_queue_refuses_again_and_again_is_given_up(it: Fixture) -> None:
    """A classic reply queue whose cluster node died refuses for as long as that is down."""
    it.settler.store(it.job, RECORD)
    it.backend.stored.pop()[1](PublishNacked("refused"))
    assert it.settlements == []
    it.later.pop()[1]()

    it.backend.stored.pop()[1](PublishNacked("refused"))

    assert it.settlements == [Settlement.ACK]
    assert it.later == []


FAILURE = ResultRecord(task_id="a", status=State.FAILURE, result=ValueError("no"), traceback="line 1")


def _refuse_twice(it: Fixture) -> None:
    it.backend.stored.pop()[1](PublishNacked("refused"))
    it.later.pop()[1]()
    it.backend.stored.pop()[1](PublishNacked("refused"))


def test_a_failure_that_is_given_up_is_kept(it: Fixture) -> None:
    it.settler.store(it.job, FAILURE)

    _refuse_twice(it)

    assert [(key, str(error), traceback) for key, error, traceback in it.kept] == [("a", "no", "line 1")]
    assert it.settlements == []


def test_a_failure_whose_reader_is_gone_is_kept_at_once(it: Fixture) -> None:
    it.settler.store(it.job, FAILURE)

    it.backend.stored.pop()[1](UnroutableError("gone"))

    assert [(key, str(error), traceback) for key, error, traceback in it.kept] == [("a", "no", "line 1")]
    assert (it.settlements, it.later) == ([], [])


@pytest.mark.parametrize("status", [State.SUCCESS, State.REVOKED])
def test_what_is_no_failure_counts_as_told_when_its_reader_is_gone(it: Fixture, status: State) -> None:
    it.settler.store(it.job, ResultRecord(task_id="a", status=status))

    it.backend.stored.pop()[1](UnroutableError("gone"))

    assert (it.kept, it.later) == ([], [])
    assert it.settlements == [Settlement.ACK]


def test_a_failure_that_is_given_up_is_not_kept_twice(it: Fixture) -> None:
    message = OutgoingMessage(exchange="", routing_key="work.dead", body=b"", properties=Properties())
    it.settler.set_aside(it.job, message, FAILURE)
    it.door.sent.pop()[1](None)

    _refuse_twice(it)

    assert it.kept == []
    assert it.settlements == [Settlement.ACK]


@pytest.mark.parametrize("error", [EncodeError("args[0]: socket"), MessageTooLarge("17 MB")])
def test_a_result_that_cannot_be_sent_becomes_a_failure(it: Fixture, error: Exception) -> None:
    if isinstance(error, EncodeError):
        it.backend.refuses = [error]
    it.settler.store(it.job, RECORD)
    if not isinstance(error, EncodeError):
        it.backend.stored.pop()[1](error)

    record, report = it.backend.stored.pop()
    report(None)

    assert (record.status, record.result) == (State.FAILURE, error)
    assert it.settlements == [Settlement.ACK]


def test_a_failure_that_cannot_be_sent_either_is_kept(it: Fixture) -> None:
    it.backend.refuses = [EncodeError("value"), EncodeError("address")]

    it.settler.store(it.job, RECORD)

    assert [str(error) for _, error, _ in it.kept] == ["value"]


def test_an_unexpected_refusal_keeps_the_delivery_and_tries_again(it: Fixture) -> None:
    it.backend.refuses = [RuntimeError("closed")]

    it.settler.store(it.job, RECORD)
    assert it.settlements == []
    it.later.pop()[1]()
    it.backend.stored.pop()[1](None)

    assert it.settlements == [Settlement.ACK]


def test_a_dead_letter_is_confirmed_then_the_waiter_told_then_the_delivery_acked(it: Fixture) -> None:
    message = OutgoingMessage(exchange="", routing_key="work.dead", body=b"", properties=Properties())

    it.settler.set_aside(it.job, message, RECORD)
    it.door.sent.pop()[1](NotSent("no connection"))
    assert (it.settlements, it.backend.stored) == ([], [])
    it.later.pop()[1]()
    it.door.sent.pop()[1](None)
    assert it.settlements == []
    it.backend.stored.pop()[1](None)

    assert it.settlements == [Settlement.ACK]


def test_without_a_waiter_the_dead_letter_is_enough(it: Fixture) -> None:
    message = OutgoingMessage(exchange="", routing_key="work.dead", body=b"", properties=Properties())

    it.settler.set_aside(it.job, message, None)
    it.door.sent.pop()[1](None)

    assert it.settlements == [Settlement.ACK]
    assert it.backend.stored == []


def test_an_early_ack_is_not_repeated(it: Fixture) -> None:
    it.settler.acknowledge_early(it.job)
    assert it.consumer.is_flushed
    it.settler.acknowledge(it.job)

    assert it.settlements == [Settlement.ACK]
    assert it.ledger.count == 0


def test_what_is_settled_after_its_connection_was_lost_is_told(it: Fixture) -> None:
    it.ledger.lose(it.job.delivery.epoch)

    it.settler.acknowledge(it.job)

    assert it.told.finished == [it.job.key]


@pytest.mark.parametrize("is_lost_before", [False, True])
def test_what_was_refused_is_not_taken_for_finished(it: Fixture, is_lost_before: bool) -> None:
    """Its redelivery would be acked, and the queue's own dead-letter exchange would never get it."""
    if is_lost_before:
        it.ledger.lose(1)

    it.settler.drop(it.job, None)

    assert it.settlements == [Settlement.DROP]
    assert it.ledger.lose(1) == ((), () if is_lost_before else (it.job.key,))
    assert not it.ledger.is_finished(it.job.key)
    assert it.ledger.is_refused(it.job.key)
    assert (it.told.refused, it.told.finished) == ([it.job.key] if is_lost_before else [], [])


def test_what_was_acked_before_it_ran_is_finished_though_it_is_refused(it: Fixture) -> None:
    it.job.is_acked = True

    it.settler.drop(it.job, None)

    assert it.settlements == []
    assert it.ledger.lose(1) == ((), (it.job.key,))


def test_an_adopted_redelivery_is_the_one_that_is_acked(it: Fixture) -> None:
    it.settler.store(it.job, RECORD)
    it.ledger.lose(1)
    again = job_of("a", epoch=2, redelivered=True)
    it.ledger.adopt(again)

    it.backend.stored.pop()[1](None)

    assert it.consumer.log == [(again.delivery, Settlement.ACK)]
    assert isinstance(again.delivery, FakeDelivery)
    # The supervisor was told that it is open: else every later redelivery of the id would be held for ever.
    assert it.told.finished == [it.job.key]


NEXT = OutgoingMessage(exchange="", routing_key="work", body=b"", properties=Properties(correlation_id="a"))


def test_the_ack_follows_the_confirmed_retry_however_often_it_is_refused(it: Fixture) -> None:
    it.settler.forward(it.job, NEXT, None)
    for error in (BrokerBlocked("alarm"), NotSent("nobody")):
        it.door.sent.pop()[1](error)
        assert it.settlements == []
        it.later.pop()[1]()

    message, report = it.door.sent.pop()
    report(None)

    assert message is NEXT
    assert it.settlements == [Settlement.ACK]
    assert it.ledger.count == 0


@pytest.mark.parametrize("error", [EncodeError("a header"), MessageTooLarge("17 MB")], ids=str)
@pytest.mark.parametrize("is_known", [True, False], ids=["task", "unknown task"])
def test_a_run_that_can_never_be_published_is_not_tried_again(
    it: Fixture, error: Exception, is_known: bool
) -> None:
    it.job.task = cast("Any", object()) if is_known else None
    it.settler.forward(it.job, NEXT, None)

    it.door.sent.pop()[1](error)

    assert it.later == []
    assert [told[:2] for told in it.ended] == ([("a", error)] if is_known else [])
    assert it.settlements == ([] if is_known else [Settlement.DROP])


def test_a_dead_letter_that_can_never_be_published_is_left_to_the_queue(it: Fixture) -> None:
    it.settler.set_aside(it.job, NEXT, FAILURE)
    it.door.sent.pop()[1](EncodeError("a header"))
    it.backend.stored.pop()[1](None)

    assert (it.later, it.kept) == ([], [])
    assert it.settlements == [Settlement.DROP]


def test_the_outcome_of_a_task_that_went_on_after_its_retry_is_stored_between(it: Fixture) -> None:
    it.settler.forward(it.job, NEXT, RECORD)
    assert it.backend.stored == []
    it.door.sent[0][1](None)
    assert it.settlements == []

    it.backend.stored[0][1](None)

    assert it.settlements == [Settlement.ACK]


def test_a_state_that_cannot_be_told_keeps_nobody_from_going_on(it: Fixture) -> None:
    it.backend.refuses = [EncodeError("odd")]

    it.settler.tell(it.job, RECORD)

    assert it.settlements == []
    assert it.ledger.count == 1


def test_a_requeued_delivery_is_no_finished_one(it: Fixture) -> None:
    it.settler.give_back(it.job, NEXT)

    assert it.settlements == [Settlement.RETURN]
    assert it.door.sent == []
    assert it.ledger.count == 0
    assert it.ledger.lose(1) == ((), ())
    assert not it.ledger.is_finished(it.job.key)


@pytest.mark.parametrize("is_adopted", [False, True])
def test_a_copy_takes_the_place_of_a_delivery_that_was_lost(it: Fixture, is_adopted: bool) -> None:
    it.ledger.lose(1)
    if is_adopted:
        it.ledger.adopt(job_of("a", epoch=2))
    it.settler.give_back(it.job, NEXT)
    assert it.settlements == []

    it.door.sent[0][1](None)

    # A redelivery of the old one is acked as a duplicate; the copy is another run.
    assert it.told.finished == [it.job.key]
    assert it.ledger.count == 0


def test_what_was_acked_early_is_requeued_as_a_copy(it: Fixture) -> None:
    it.settler.acknowledge_early(it.job)
    it.settler.give_back(it.job, NEXT)
    it.door.sent[0][1](None)

    assert it.settlements == [Settlement.ACK]


def test_an_end_is_counted_once_when_it_is_settled_and_what_goes_on_elsewhere_is_none(it: Fixture) -> None:
    it.settler.store(it.job, RECORD)
    assert it.counted == []
    it.backend.stored[0][1](None)
    assert it.counted == ["done"]

    it.ledger.open(letter := job_of("b"))
    message = OutgoingMessage(exchange="", routing_key="q.dead", body=b"", properties=Properties())
    it.settler.set_aside(letter, message, None)
    it.door.sent[0][1](None)

    assert it.settlements == [Settlement.ACK, Settlement.ACK]
    assert it.counted == ["done"]
