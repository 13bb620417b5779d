"""Expected results without a broker: each wait and each question ends."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import cast

import pytest

from amqp_tasks import App, AsyncResult
from amqp_tasks.backends._inbox import Entry, Inbox
from amqp_tasks.errors import AmqpTasksError, ClosedError, ResultLost, ResultTimeout, ResultUnavailable
from amqp_tasks.message import DEFAULT_LIMITS, ResultRecord, State
from amqp_tasks.transport import Consumer
from support.eventually import eventually, wait_until

DONE = ResultRecord(task_id="a", status=State.SUCCESS, result=1)


@pytest.fixture
def inbox() -> Inbox:
    return Inbox(("json",), DEFAULT_LIMITS, 10)


@pytest.mark.parametrize("timeout", [-1, -0.5, 0, 0.01])
def test_a_wait_whose_time_has_passed_ends(inbox: Inbox, timeout: float) -> None:
    assert inbox.expect("a").wait(timeout) is False


def test_an_interrupted_wait_leaves_nothing_behind(inbox: Inbox) -> None:
    # A run in the background of a shell starts with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    entry = inbox.expect("a")

    def interrupt() -> None:
        eventually(lambda: bool(entry.waiters))
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            entry.wait(10)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join(5)

    assert entry.waiters == ()


def closed(inbox: Inbox, entry: Entry) -> None:
    inbox.close(timeout=1)


def lost(inbox: Inbox, entry: Entry) -> None:
    inbox.lose(entry)


def forked(inbox: Inbox, entry: Entry) -> None:
    holder = threading.Thread(target=inbox.lock.acquire)  # the child does not have it
    holder.start()
    holder.join()
    inbox.abandon()


@pytest.mark.parametrize(
    ("happen", "error"), [(closed, ClosedError), (lost, ResultLost), (forked, ResultUnavailable)]
)
def test_a_result_that_will_not_come_is_told_to_whoever_asks(
    inbox: Inbox, happen: Callable[[Inbox, Entry], None], error: type[AmqpTasksError]
) -> None:
    entry = inbox.expect("a")

    happen(inbox, entry)

    with pytest.raises(error):
        entry.wait(None)
    with pytest.raises(error):
        entry.peek()
    told = threading.Event()
    entry.on_ready(told.set)
    assert told.is_set()


def test_an_expectation_of_a_closed_inbox_has_ended(inbox: Inbox) -> None:
    inbox.close(timeout=1)

    with pytest.raises(ClosedError):
        inbox.expect("a").wait(None)


def test_callbacks_of_the_parent_do_not_run_in_a_forked_child(inbox: Inbox) -> None:
    entry = inbox.expect("a")
    entry.on_ready(lambda: pytest.fail("the parent's callback ran"))

    inbox.abandon()
    inbox.end(entry, record=DONE)

    assert entry.peek() == DONE


def test_the_first_final_state_stays(inbox: Inbox) -> None:
    entry = inbox.expect("a")

    inbox.end(entry, record=DONE)
    inbox.end(entry, record=ResultRecord(task_id="a", status=State.SUCCESS, result=2))
    entry.fail(ResultLost("late"))

    assert entry.peek() == DONE


@pytest.mark.parametrize("error", [ZeroDivisionError, SystemExit])
def test_a_failing_callback_keeps_no_other_from_running(
    inbox: Inbox, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    def fail() -> None:
        raise error

    entry, told = inbox.expect("a"), threading.Event()
    entry.on_ready(fail)
    entry.on_ready(told.set)

    inbox.end(entry, record=DONE)

    assert told.is_set()
    assert [getattr(record, "action", None) for record in caplog.records] == ["result_callback"]


def test_listeners_hear_each_state_until_they_leave(inbox: Inbox) -> None:
    entry, heard = inbox.expect("a"), list[ResultRecord]()
    started = ResultRecord(task_id="a", status=State.STARTED, result=None)

    entry.listen(heard.append)
    inbox.end(entry, record=started)
    entry.unlisten(heard.append)
    entry.listen(listener := heard.append)
    inbox.end(entry, record=DONE)
    entry.unlisten(listener)

    assert heard == [started, DONE]


class SlowToPause:
    """A consumer that notes its orders, and while it is told to pause lets somebody begin to wait."""

    def __init__(self) -> None:
        self.orders: list[str] = []
        self.begin_to_wait: Callable[[], None] = lambda: None

    def pause(self) -> None:
        self.begin_to_wait()
        self.orders.append("pause")

    def resume(self) -> None:
        self.orders.append("resume")

    def close(self, *, timeout: float) -> None:
        """Nothing to close."""


def test_who_begins_to_wait_while_consuming_is_being_paused_has_it_resumed(inbox: Inbox) -> None:
    consumer, asked = SlowToPause(), inbox.expect("asked")
    inbox.attach(cast("Consumer", consumer), "replies")
    unread = [inbox.expect(f"{n}") for n in range(10)]
    for entry in unread:
        inbox.end(entry, record=ResultRecord(task_id=entry.task_id, status=State.SUCCESS, result=1))
    thread = threading.Thread(target=asked.wait, args=(20,))

    def begin_to_wait() -> None:
        thread.start()
        # Time for it to give its order too early, in vain when it has to wait for the pause.
        wait_until(lambda: "resume" in consumer.orders, 0.2)

    consumer.begin_to_wait = begin_to_wait
    inbox._bound(len(unread))

    eventually(lambda: consumer.orders == ["pause", "resume"])
    inbox.end(asked, record=DONE)
    thread.join(5)
    assert not thread.is_alive()


class LateCaller:
    """A lock of the inbox; while it is being taken, somebody asks for a result that was not expected before."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox, self._lock = inbox, threading.Lock()

    def __enter__(self) -> None:
        if self._inbox.find("late") is None:
            self._inbox.expect("late").on_ready(lambda: None)
        self._lock.acquire()

    def __exit__(self, *_exc: object) -> None:
        self._lock.release()


def test_who_asks_for_a_new_result_just_before_consuming_is_paused_has_it_resumed(inbox: Inbox) -> None:
    consumer = SlowToPause()
    inbox.attach(cast("Consumer", consumer), "replies")
    unread = [inbox.expect(f"{n}") for n in range(10)]
    for entry in unread:
        inbox.end(entry, record=ResultRecord(task_id=entry.task_id, status=State.SUCCESS, result=1))
    inbox._pausing = cast("threading.Lock", LateCaller(inbox))

    inbox._bound(len(unread))

    assert consumer.orders == ["pause", "resume"]


def test_who_looks_at_progress_for_a_while_leaves_nothing_behind(
    inbox: Inbox, capsys: pytest.CaptureFixture[str]
) -> None:
    entry = inbox.expect("a")
    with App("looking", broker="memory://") as app:
        result = AsyncResult[int]("a", app=app, expected=entry)
        with pytest.raises(ResultTimeout):
            result.get(timeout=0, progress=True)
        with pytest.raises(ResultTimeout):
            list(result.updates(timeout=0))

    assert (entry.listeners, entry.callbacks, inbox._kept) == ((), (), set())


def test_an_iteration_over_progress_that_is_broken_off_leaves_nothing_behind(inbox: Inbox) -> None:
    entry = inbox.expect("a")
    with App("looking", broker="memory://") as app:
        updates = AsyncResult[int]("a", app=app, expected=entry).updates()
        told = threading.Thread(target=_tell_when_heard, args=(inbox, entry))
        told.start()
        assert next(updates).done == 2
        told.join(5)
        del updates

    assert (entry.listeners, entry.callbacks, inbox._kept) == ((), (), set())


def test_who_asks_late_for_progress_gets_what_was_told_last_and_gets_it_once(inbox: Inbox) -> None:
    entry = inbox.expect("a")
    told_last = ResultRecord(task_id="a", status="PROGRESS", result={"done": 2})
    inbox.end(entry, record=told_last)
    with App("late", broker="memory://") as app:
        updates = AsyncResult[int]("a", app=app, expected=entry).updates(timeout=5)

        assert next(updates).done == 2
        (hear,) = entry.listeners
        hear(told_last)  # it was being told while `updates` looked
        hear(ResultRecord(task_id="a", status="PROGRESS", result={"done": 3}))
        inbox.end(entry, record=ResultRecord(task_id="a", status=State.SUCCESS, result=1))
        assert [update.done for update in updates] == [3]


def test_progress_that_is_told_while_somebody_begins_to_listen_keeps_its_order(inbox: Inbox) -> None:
    entry = inbox.expect("a")
    inbox.end(entry, record=ResultRecord(task_id="a", status="PROGRESS", result={"done": 2}))
    coming = [3, 4]

    class Late(AsyncResult[int]):
        def _peek(self) -> ResultRecord | None:
            while coming:
                news = ResultRecord(task_id="a", status="PROGRESS", result={"done": coming.pop(0)})
                inbox.end(entry, record=news)
            return super()._peek()

    with App("late", broker="memory://") as app:
        updates = Late("a", app=app, expected=entry).updates(timeout=5)

        assert [next(updates).done, next(updates).done] == [3, 4]


def test_progress_of_a_result_that_is_lost_has_ended(inbox: Inbox) -> None:
    entry = inbox.expect("a")
    inbox.lose(entry)

    with App("late", broker="memory://") as app:
        assert list(AsyncResult[int]("a", app=app, expected=entry).updates(timeout=5)) == []


def _tell_when_heard(inbox: Inbox, entry: Entry) -> None:
    eventually(lambda: bool(entry.listeners))
    inbox.end(entry, record=ResultRecord(task_id="a", status="PROGRESS", result={"done": 2}))


def test_listening_can_end_in_a_thread_that_is_at_it_in_the_inbox(inbox: Inbox) -> None:
    """As when the garbage collector ends an iteration that nobody goes on with."""
    entry = inbox.expect("a")
    entry.listen(print)
    entry.on_ready(print)

    with inbox.lock:
        entry.unlisten(print)
        entry.withdraw(print)

    assert (entry.listeners, entry.callbacks) == ((), ())
