"""The thread that looks at joins outlives what users' code raises in it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, NoReturn, cast
from unittest.mock import MagicMock

import pytest

from amqp_tasks.canvas import Join
from amqp_tasks.errors import AmqpTasksError
from amqp_tasks.message import DEFAULT_LIMITS, JoinWatch
from amqp_tasks.transport import QueueStatus, Transport
from amqp_tasks.worker._joiner import Joiner
from amqp_tasks.worker._taking import Taking
from support.eventually import wait_until

if TYPE_CHECKING:
    from amqp_tasks.app import App


class _Exiting:
    """An app whose broker is asked in vain."""

    @property
    def transport(self) -> NoReturn:
        raise SystemExit


@pytest.fixture
def again() -> SimpleQueue[Callable[[], None]]:
    """What is to be done later."""
    return SimpleQueue()


@pytest.fixture
def joiner(again: SimpleQueue[Callable[[], None]]) -> Iterator[Joiner]:
    nobody = cast("Any", None)
    made = Joiner(
        cast("App", _Exiting()),
        nobody,
        nobody,
        DEFAULT_LIMITS,
        lambda _, later: again.put(later),
        keeps_failures=True,
    )
    yield made
    made.close(timeout=5)


@pytest.mark.parametrize("is_watched", [False, True])
def test_a_look_that_exits_is_made_again(
    joiner: Joiner, again: SimpleQueue[Callable[[], None]], is_watched: bool
) -> None:
    watch = JoinWatch(queue="a join", definition={"size": 1}, since=0.0, pause=1.0)

    def look() -> None:
        joiner.watch(watch, "work", _never, _never)

    if is_watched:
        joiner.run(look)
    else:
        joiner.look([Join(queue="a join", index=0, size=1)], "work", _never)

    again.get(timeout=10)()
    again.get(timeout=10)


def test_what_exits_keeps_no_other_from_its_turn(joiner: Joiner) -> None:
    done = threading.Event()

    joiner.run(_exit)
    joiner.run(done.set)

    assert done.wait(10)


def _exit() -> NoReturn:
    raise SystemExit


def _never(*_args: object) -> NoReturn:
    raise AssertionError("it has not ended")


class _Asked:
    """A broker that says how many messages are ready and how many consume, one look after the other."""

    def __init__(self, *looks: tuple[int, int]) -> None:
        self.looks = list(looks)

    def queue_status(self, name: str) -> QueueStatus:
        messages, consumers = self.looks.pop(0)
        return QueueStatus(name=name, messages=messages, consumers=consumers)


@pytest.mark.parametrize(
    "looks", [[(0, 2)], [(1, 1)], [(0, 1), (1, 1)]], ids=["holds", "left some", "gives back"]
)
def test_failures_are_not_told_while_another_has_a_part_of_the_join(looks: list[tuple[int, int]]) -> None:
    """It may be what says that they were told: a step that was resumed would be told again that it is not run."""
    taking = Taking(cast("Any", _Asked(*looks)), "q", 4, DEFAULT_LIMITS)

    with pytest.raises(AmqpTasksError, match="another has a part of join 'q'"):
        taking.check_rivals()


def test_failures_are_told_by_who_has_all_of_the_join() -> None:
    Taking(cast("Any", _Asked((0, 1), (0, 1))), "q", 4, DEFAULT_LIMITS).check_rivals()


def test_a_join_that_another_has_is_looked_at_later_without_consuming_it(
    again: SimpleQueue[Callable[[], None]],
) -> None:
    """It may be about to delete it: whoever asks for the queue meanwhile has its connection closed by the broker."""
    broker = MagicMock(spec_set=Transport)
    broker.queue_status.return_value = QueueStatus(name="a join", messages=3, consumers=1)
    joiner = _joiner_at(broker, again)

    joiner.look([Join(queue="a join", index=0, size=2)], "work", _never)

    again.get(timeout=10)
    joiner.close(timeout=5)
    assert not broker.consume.called


def test_a_join_is_consumed_no_more_when_it_is_deleted() -> None:
    broker = MagicMock(spec_set=Transport)

    with Taking(broker, "a join", 4, DEFAULT_LIMITS) as taking:
        taking.delete()

    called = [call[0] for call in broker.mock_calls]
    assert called == ["consume", "consume().pause", "delete_queue", "consume().close"]


def _joiner_at(broker: MagicMock, again: SimpleQueue[Callable[[], None]]) -> Joiner:
    app, nobody = MagicMock(transport=broker), cast("Any", None)
    return Joiner(app, nobody, nobody, DEFAULT_LIMITS, lambda _, later: again.put(later), keeps_failures=True)


@pytest.mark.parametrize("messages", [0, 2], ids=["all", "a part"])
def test_a_join_of_which_another_holds_what_is_missing_is_looked_at_until_it_is_left(
    again: SimpleQueue[Callable[[], None]], messages: int
) -> None:
    """Who discards a workflow reads its joins, hands all back and looks no more: nobody else would."""
    held = QueueStatus(name="a join", messages=messages, consumers=1)
    left = QueueStatus(name="a join", messages=2, consumers=0)
    broker = MagicMock(spec_set=Transport)
    broker.queue_status.side_effect = [held, held, held, left]
    joiner, looked = _joiner_at(broker, again), threading.Event()

    joiner.look([Join(queue="a join", index=0, size=2)], "work", looked.set)
    for _ in range(3):
        assert not looked.is_set()
        again.get(timeout=10)()

    assert looked.wait(10)
    joiner.close(timeout=5)
    assert not broker.consume.called


def test_a_join_that_somebody_consumes_for_ever_keeps_no_delivery_open(
    again: SimpleQueue[Callable[[], None]],
) -> None:
    broker = MagicMock(spec_set=Transport)
    broker.queue_status.return_value = QueueStatus(name="a join", messages=2, consumers=1)
    joiner, looked = _joiner_at(broker, again), threading.Event()

    joiner.look([Join(queue="a join", index=0, size=2)], "work", looked.set)
    while not looked.is_set() and broker.queue_status.call_count < 20:
        wait_until(lambda: looked.is_set() or not again.empty(), within=10)
        if not again.empty():
            again.get()()

    joiner.close(timeout=5)
    assert looked.is_set()
