"""What users' code may do to a worker: tasks, values, stores and routes that raise, exit or stall. Its slots go on."""

from __future__ import annotations

import asyncio
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import pytest

from amqp_tasks import App, chord
from amqp_tasks.errors import EncodeError
from amqp_tasks.idempotency import Claim, MemoryStore
from support import eventually
from support.inside import running


class Mute(BaseException):
    """Has no text."""

    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class Silent(Exception):
    """Has no text either, and is an error of the usual kind."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.fixture
def app() -> Iterator[App]:
    """With a broker of its own, and a task that shows whether a slot goes on."""
    with App("odd", broker=f"memory://{uuid.uuid4().hex}/") as made:
        made.task(name="good")(_one)
        yield made


def _one() -> int:
    return 1


@contextmanager
def one_slot(app: App) -> Iterator[None]:
    """A worker with one slot, which still runs tasks at the end of the block."""
    with running(app, pool="threads", concurrency=1):
        yield
        assert app.tasks["good"].delay().get(timeout=10) == 1


def test_whatever_a_task_raises_its_slot_goes_on(app: App) -> None:
    @app.task
    def cancelled() -> None:
        raise asyncio.CancelledError

    @app.task
    def mute() -> None:
        raise Mute

    with one_slot(app):
        with pytest.raises(RuntimeError, match=r"raised Mute\(.*cannot be made"):
            mute.delay().get(timeout=10)
        with pytest.raises(RuntimeError, match="raised CancelledError"):
            cancelled.delay().get(timeout=10)


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt, GeneratorExit, Mute])
def test_where_a_task_asked_the_process_to_exit_is_told(app: App, kind: type[BaseException]) -> None:
    @app.task
    def leave() -> None:
        raise kind

    with one_slot(app):
        result = leave.delay()
        with pytest.raises(RuntimeError, match=f"raised {kind.__name__}"):
            result.get(timeout=10)
        leave.apply_async(ignore_result=True)
        eventually(lambda: bool(app.dead_letters.find()))

    (letter,) = app.dead_letters.find()
    for told in (result.traceback, letter.traceback):
        assert told is not None
        assert told.startswith("Traceback (most recent call last):\n  File")
        assert "in leave" in told.splitlines()[1]
        assert kind.__name__ in told.splitlines()[-1]


@pytest.mark.parametrize(
    ("error", "said"),
    [(SystemExit("from the store"), "from the store"), (Silent(), "its text cannot be made")],
    ids=["exits", "has no text"],
)
def test_where_the_store_of_keys_fails_in_any_way_the_task_waits(
    app: App, caplog: pytest.LogCaptureFixture, error: BaseException, said: str
) -> None:
    class Failing(MemoryStore):
        def claim(self, *_args: Any, **_options: Any) -> Claim:
            raise error

    app.idempotency_store = Failing()
    once = app.task(idempotent=True)(_one)

    with one_slot(app):
        waiting = once.delay()
        eventually(lambda: f"task {waiting.id} waits" in caplog.text, within=10)

    assert said in caplog.text


@pytest.mark.parametrize("link", [False, True], ids=["alone", "with a callback"])
def test_a_result_that_exits_when_it_is_written_is_a_failure(app: App, link: bool) -> None:
    class Exiting:
        def __json__(self) -> NoReturn:
            raise SystemExit

    @app.task
    def bad() -> object:
        return Exiting()

    with one_slot(app):
        failing = bad.apply_async(link=app.tasks["good"].si() if link else None)
        with pytest.raises(EncodeError, match="Exiting"):
            failing.get(timeout=10)


class Noting:
    """A value that notes which threads write it."""

    def __init__(self) -> None:
        self.threads: set[str] = set()

    def __json__(self) -> int:
        self.threads.add(threading.current_thread().name)
        return 1

    def __repr__(self) -> str:
        return "a value"


@pytest.mark.parametrize("link", [False, True], ids=["alone", "with callbacks"])
@pytest.mark.parametrize("is_kept", [False, True], ids=["acked", "kept"])
@pytest.mark.parametrize("fails", [False, True], ids=["returned", "raised"])
def test_values_of_a_task_are_written_by_its_slot(app: App, fails: bool, is_kept: bool, link: bool) -> None:
    """By the I/O thread a slow one would stop heartbeats, and all other tasks of the process."""
    value = Noting()

    @app.task(acks_on_failure=not is_kept)
    def task() -> object:
        if fails:
            raise ValueError(value)
        return value

    @app.task
    def following(_given: Any) -> None:
        pass

    links: dict[str, Any] = {"link": following.s(), "link_error": following.s()} if link else {}
    with running(app, pool="threads", concurrency=2):
        result = task.apply_async(**links)
        with suppress(ValueError):
            assert result.get(timeout=10) == 1

    assert {name.rpartition("-")[0] for name in value.threads} == {"amqp-tasks-slot"}


def test_where_an_error_around_a_task_cannot_be_shown_the_task_is_set_aside(app: App) -> None:
    class Hiding:
        def __json__(self) -> NoReturn:
            raise Mute

    @app.task
    def bad() -> object:
        return Hiding()

    with one_slot(app):
        bad.delay()
        eventually(lambda: len(app.dead_letters.find()) == 1, within=10)


def test_a_result_whose_repr_exits_is_a_result(app: App, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "amqp_tasks")  # where results are shown

    class Exiting(dict[str, int]):
        def __repr__(self) -> str:
            raise SystemExit

        __bounded_repr__ = __repr__

    @app.task
    def shy() -> dict[str, int]:
        return Exiting(a=1)

    with one_slot(app):
        assert shy.delay().get(timeout=10) == {"a": 1}


def test_a_route_that_exits_where_a_chords_body_is_sent_fails_it_and_others_go_on(app: App) -> None:
    def route(name: str, *_args: Any, **_options: Any) -> None:
        if name == "bad" and threading.current_thread() is not threading.main_thread():
            raise SystemExit("from the route")

    app.conf.update(task_routes=(route,))
    good = app.tasks["good"]

    @app.task(name="bad")
    def bad(values: list[int]) -> int:
        return sum(values)

    @app.task
    def total(values: list[int]) -> int:
        return sum(values)

    with one_slot(app):
        lost = chord([good.s(), good.s()], bad.s()).delay()
        with pytest.raises(RuntimeError, match="from the route"):
            lost.get(timeout=10)
        assert chord([good.s(), good.s()], total.s()).delay().get(timeout=10) == 2
