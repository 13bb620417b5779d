"""What follows a task is sent until each part has an answer that counts, and no longer than its worker lives."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from amqp_tasks.canvas import Join
from amqp_tasks.errors import (
    AmqpTasksError,
    BrokerBlocked,
    BrokerUnreachable,
    EncodeError,
    MessageTooLarge,
    NotSent,
    PublishNacked,
    PublishRefused,
    UnroutableError,
)
from amqp_tasks.message import JOIN_PREFIX, OutgoingMessage, Properties, ResultRecord, State
from amqp_tasks.worker._sending import Closing, Sending
from amqp_tasks.worker._steps import Steps
from support.eventually import eventually

Report = Callable[[Exception | None], None]


@dataclass
class Broker:
    """Transport and backend of an app: keep what is handed over until the test answers."""

    sent: list[tuple[Any, Report]] = field(default_factory=list)
    refuses: list[Exception] = field(default_factory=list)

    @property
    def transport(self) -> Broker:
        return self

    backend = transport

    def publish_nowait(self, message: OutgoingMessage, on_outcome: Report) -> None:
        self._take(message, on_outcome)

    def store_nowait(
        self, record: ResultRecord, *, reply_to: str, correlation_id: str, on_stored: Report
    ) -> None:
        self._take(record, on_stored)

    def _take(self, what: Any, report: Report) -> None:
        if self.refuses:
            raise self.refuses.pop(0)
        self.sent.append((what, report))

    def answer(self, error: Exception | None = None) -> None:
        self.sent.pop(0)[1](error)


class Fixture:
    def __init__(self) -> None:
        self.broker = Broker()
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.aside: list[Callable[[], None]] = []
        self.sending = Sending(
            self.broker,  # type: ignore[arg-type]  # only what is used of an app
            lambda pause, work: self.later.append((pause, work)),
            aside=self.aside.append,
        )
        self.ended = 0

    def send(self, steps: Steps) -> None:
        self.sending.send(steps, self._then)

    def _then(self) -> None:
        self.ended += 1


@pytest.fixture
def it() -> Fixture:
    return Fixture()


def message(queue: str = "work") -> OutgoingMessage:
    return OutgoingMessage(exchange="", routing_key=queue, body=b"", properties=Properties())


def end() -> tuple[ResultRecord, str]:
    return ResultRecord(task_id="a", status=State.FAILURE, result=ValueError("no")), "reply"


def test_nothing_to_send_ends_at_once(it: Fixture) -> None:
    it.send(Steps())

    assert it.ended == 1


def test_it_ends_once_when_all_is_confirmed(it: Fixture) -> None:
    it.send(Steps(messages=[message(), message()], records=[end()]))
    it.broker.answer()
    it.broker.answer()
    assert it.ended == 0

    it.broker.answer()

    assert it.ended == 1


@pytest.mark.parametrize("is_raised", [False, True])
def test_what_is_not_sent_is_sent_again_with_growing_pauses(it: Fixture, is_raised: bool) -> None:
    pauses = []
    it.broker.refuses = [BrokerBlocked("alarm")] * (3 if is_raised else 0)
    it.send(Steps(messages=[message()]))
    for _ in range(3):
        if not is_raised:
            it.broker.answer(BrokerBlocked("alarm"))
        pause, again = it.later.pop()
        pauses.append(pause)
        again()
    it.broker.answer()

    assert pauses == sorted(set(pauses))
    assert it.ended == 1


@pytest.mark.parametrize("refusal", [MessageTooLarge("large"), PublishRefused("403")])
def test_what_is_refused_for_good_is_replaced_aside_and_its_joins_are_looked_at(
    it: Fixture, refusal: NotSent
) -> None:
    join = Join(queue=f"{JOIN_PREFIX}it", index=0, size=1)
    seen: list[Exception] = []

    def instead(error: Exception) -> Steps:
        seen.append(error)
        return Steps(messages=[message("work.dead"), message(join.queue)], joins=[join])

    steps = Steps(messages=[message()], instead={0: instead})
    it.send(steps)
    it.broker.answer(refusal)
    assert (seen, it.later) == ([], [])  # not on the I/O thread

    it.aside.pop()()
    it.broker.answer()
    it.broker.answer()

    assert (seen, it.ended) == ([refusal], 1)
    assert steps.joins == [join]


def test_what_has_no_replacement_is_sent_again_though_it_was_refused_for_good(it: Fixture) -> None:
    it.send(Steps(messages=[message("work.dead")]))
    it.broker.answer(PublishRefused("403"))

    it.later.pop()[1]()
    it.broker.answer()

    assert it.ended == 1


def test_who_sends_once_waits_for_the_replacement(it: Fixture) -> None:
    steps = Steps(
        messages=[message(), message()], instead={1: lambda _: Steps(messages=[message("instead")])}
    )
    sender = threading.Thread(target=it.sending.send_once, args=(steps,))
    sender.start()
    eventually(lambda: _count(it.broker.sent, 2), within=5)
    it.broker.answer()
    it.broker.answer(MessageTooLarge("large"))
    eventually(lambda: _count(it.broker.sent, 1), within=5)
    assert it.broker.sent[0][0].routing_key == "instead"
    it.broker.answer()

    sender.join(5)

    assert not sender.is_alive()


def _count(found: list[Any], count: int) -> None:
    assert len(found) == count


def test_what_comes_too_late_for_a_join_is_done(it: Fixture) -> None:
    it.send(Steps(messages=[message(f"{JOIN_PREFIX}gone"), message()]))
    it.broker.answer(UnroutableError("gone"))
    it.broker.answer(UnroutableError("gone"))

    assert it.ended == 0
    assert len(it.later) == 1


def test_an_end_that_nobody_reads_any_more_is_done(it: Fixture) -> None:
    it.send(Steps(records=[end()]))
    it.broker.answer(UnroutableError("gone"))

    assert (it.ended, it.later) == (1, [])


def test_an_end_that_is_refused_twice_is_given_up(it: Fixture) -> None:
    it.send(Steps(records=[end()]))
    it.broker.answer(PublishNacked("full"))
    assert it.ended == 0
    it.later.pop()[1]()

    it.broker.answer(PublishNacked("full"))

    assert it.ended == 1
    assert it.later == []


@pytest.mark.parametrize("error", [EncodeError("socket"), MessageTooLarge("17 MB")])
def test_an_end_that_cannot_be_written_is_given_up(it: Fixture, error: Exception) -> None:
    it.broker.refuses = [error]
    it.send(Steps(records=[end()]))

    assert it.ended == 1


def test_nothing_is_sent_again_once_the_worker_closes(it: Fixture) -> None:
    it.send(Steps(messages=[message()], records=[end()]))
    it.sending.close()
    it.broker.answer(BrokerBlocked("alarm"))
    it.broker.answer(PublishNacked("full"))

    assert (it.ended, it.later) == (0, [])


def test_sending_once_tells_what_was_not_sent(it: Fixture) -> None:
    caught: list[AmqpTasksError] = []

    def send() -> None:
        try:
            it.sending.send_once(Steps(messages=[message(), message()]))
        except AmqpTasksError as exc:
            caught.append(exc)

    thread = threading.Thread(target=send)
    it.broker.refuses = [PublishNacked("full")]
    thread.start()
    thread.join(10)

    assert [type(error) for error in caught] == [PublishNacked]
    assert it.later == []


def test_who_waits_for_the_broker_is_let_go_when_the_worker_closes(it: Fixture) -> None:
    def ask() -> None:
        it.sending.close()
        raise BrokerUnreachable("away")

    with pytest.raises(Closing):
        it.sending.until_broker_is_back(ask)


def test_who_waits_for_the_broker_gets_what_it_gives_when_it_is_back(it: Fixture) -> None:
    answers: list[Any] = [BrokerUnreachable("away"), 4]

    def ask() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    assert it.sending.until_broker_is_back(ask) == 4
