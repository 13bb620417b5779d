"""What has an idempotency key is done once, whoever calls it how often; what fails may be called again."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import SimpleQueue
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, Task
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import ConfigurationError, TaskExpired, TaskRevokedError
from amqp_tasks.idempotency import Claim, Holder, MemoryStore
from amqp_tasks.worker import _leases, _once
from support import eventually


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    monkeypatch.setattr(_once, "WAIT", 0.05)
    made = App("proj", broker=f"memory://{uuid4().hex}/", task_idempotency_store="memory://")
    yield made
    made.close()


@contextmanager
def working(app: App) -> Iterator[None]:
    worker = app.Worker(pool="threads", concurrency=2)
    thread = threading.Thread(target=worker.start)
    thread.start()
    try:
        assert worker.ready.wait(10)
        yield
    finally:
        assert worker.stop(5)
        thread.join(5)


class Recorder:
    """A task's function, and what it was called with."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.gate = threading.Event()
        self.fails = 0

    def __call__(self, value: Any) -> Any:
        self.calls.append(value)
        assert self.gate.wait(10)
        if self.fails:
            self.fails -= 1
            raise ValueError(value)
        return {"paid": value}


@pytest.fixture
def pay() -> Recorder:
    return Recorder()


def registered(app: App, function: Callable[..., Any], **options: Any) -> Any:
    def run(value: Any) -> Any:
        return function(value)

    decorate: Any = app.task(name="pay", **options)
    return decorate(run)


def test_a_call_that_passes_the_headers_of_a_request_on_is_another_call(app: App) -> None:
    """It was taken for the same one and never run, as its headers had the key."""
    seen: SimpleQueue[tuple[int, str | None, dict[str, Any]]] = SimpleQueue()

    @app.task(name="page", bind=True)
    def page(self: Task[..., Any], number: int) -> None:
        seen.put((number, self.request.idempotency_key, self.request.headers))
        if number < 2:
            self.apply_async((number + 1,), headers=self.request.headers)

    with working(app):
        page.apply_async((1,), idempotency_key="k", headers={"x-tenant": "t"})

        assert seen.get(timeout=10) == (1, "k", {"x-tenant": "t"})
        assert seen.get(timeout=10) == (2, None, {"x-tenant": "t"})


def test_a_signature_from_a_request_has_its_key(app: App) -> None:
    seen: SimpleQueue[str | None] = SimpleQueue()

    @app.task(name="page", bind=True)
    def page(self: Task[..., Any], number: int) -> None:
        seen.put(self.signature_from_request().options.get("idempotency_key"))

    with working(app):
        page.apply_async((1,), idempotency_key="k")
        page.apply_async((1,))

        assert {seen.get(timeout=10), seen.get(timeout=10)} == {"k", None}


def test_calls_with_one_key_are_carried_out_once_and_all_get_the_outcome(app: App, pay: Recorder) -> None:
    task = registered(app, pay)
    pay.gate.set()
    with working(app):
        first = task.apply_async((1,), idempotency_key="order-1")
        assert first.get(timeout=10) == {"paid": 1}
        second = task.apply_async((2,), idempotency_key="order-1")
        other = task.apply_async((3,), idempotency_key="order-2")

        assert second.get(timeout=10) == {"paid": 1}
        assert other.get(timeout=10) == {"paid": 3}
    assert pay.calls == [1, 3]


def test_keys_of_different_tasks_have_nothing_to_do_with_each_other(app: App, pay: Recorder) -> None:
    pay.gate.set()
    task = registered(app, pay)
    refund = app.task(name="refund")(lambda value: value)
    with working(app):
        assert task.apply_async((1,), idempotency_key="k").get(timeout=10) == {"paid": 1}
        assert refund.apply_async((1,), idempotency_key="k").get(timeout=10) == 1


def test_a_call_that_comes_while_another_one_runs_waits_for_its_outcome(app: App, pay: Recorder) -> None:
    task = registered(app, pay)
    with working(app):
        first = task.apply_async((1,), idempotency_key="k")
        eventually(lambda: pay.calls == [1])
        second = task.apply_async((2,), idempotency_key="k")
        third = app.task(name="plain")(lambda: "not held up").delay()
        assert third.get(timeout=10) == "not held up"

        pay.gate.set()
        assert first.get(timeout=10) == second.get(timeout=10) == {"paid": 1}
    assert pay.calls == [1]


def test_after_a_failure_the_call_may_be_made_again(app: App, pay: Recorder) -> None:
    task = registered(app, pay)
    pay.gate.set()
    pay.fails = 1
    with working(app):
        with pytest.raises(ValueError, match="1"):
            task.apply_async((1,), idempotency_key="k").get(timeout=10)
        assert task.apply_async((2,), idempotency_key="k").get(timeout=10) == {"paid": 2}


def test_a_retry_is_the_same_call(app: App, pay: Recorder) -> None:
    task = registered(app, pay, autoretry_for=(ValueError,), default_retry_delay=0.01)
    pay.gate.set()
    pay.fails = 2
    with working(app):
        assert task.apply_async((1,), idempotency_key="k").get(timeout=10) == {"paid": 1}
        assert task.apply_async((2,), idempotency_key="k").get(timeout=10) == {"paid": 1}
    assert pay.calls == [1, 1, 1]


def test_an_idempotent_task_has_its_id_as_its_key(app: App, pay: Recorder) -> None:
    task = registered(app, pay, idempotent=True)
    pay.gate.set()
    with working(app):
        # What a repeated publish does.
        results = [task.apply_async((1,), task_id="twice") for _ in range(2)]
        assert [result.get(timeout=10) for result in results] == [{"paid": 1}] * 2
        assert task.apply_async((2,)).get(timeout=10) == {"paid": 2}
    assert pay.calls == [1, 2]


def test_two_messages_with_one_id_are_not_run_at_the_same_time(app: App, pay: Recorder) -> None:
    task = registered(app, pay, idempotent=True)
    with working(app):
        results = [task.apply_async((1,), task_id="twice") for _ in range(2)]
        eventually(lambda: pay.calls == [1])
        # The second one has asked and waits; were it run, it would stand at the gate as well.
        assert app.task(name="plain")(lambda: "not held up").delay().get(timeout=10) == "not held up"
        pay.gate.set()

        assert [result.get(timeout=10) for result in results] == [{"paid": 1}] * 2
    assert pay.calls == [1]


def test_a_run_keeps_its_lease_for_as_long_as_it_takes(
    app: App, pay: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_once, "LEASE", 0.3)
    monkeypatch.setattr(_leases, "LEASE", 0.3)
    monkeypatch.setattr(_leases, "EVERY", 0.05)
    clock = SYSTEM_CLOCK
    task = registered(app, pay, idempotent=True)
    with working(app):
        task.apply_async((1,), task_id="twice")
        eventually(lambda: pay.calls == [1])
        begun = clock.monotonic()
        second = task.apply_async((1,), task_id="twice")
        eventually(lambda: clock.monotonic() - begun > 1.0)
        pay.gate.set()

        assert second.get(timeout=10) == {"paid": 1}
    assert pay.calls == [1]


def test_a_run_whose_lease_cannot_be_renewed_goes_on_and_that_is_said_once(
    app: App, pay: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(_leases, "EVERY", 0.01)
    refused: list[str] = []

    class Failing(MemoryStore):
        def renew(self, key: str, holder: Holder, *, lease: float) -> None:
            refused.append(key)
            raise OSError("no store")

    app.idempotency_store = Failing()
    task = registered(app, pay)
    with working(app):
        result = task.apply_async((1,), idempotency_key="k")
        eventually(lambda: len(refused) >= 3)
        pay.gate.set()

        assert result.get(timeout=10) == {"paid": 1}
    told = [record for record in caplog.records if "cannot be renewed" in record.getMessage()]
    assert sum(record.levelname == "WARNING" for record in told) == 1


def test_what_is_revoked_before_its_next_run_lets_others_have_its_key(app: App, pay: Recorder) -> None:
    task = registered(app, pay, autoretry_for=(ValueError,), default_retry_delay=0.5)
    pay.gate.set()
    pay.fails = 1
    with working(app):
        first = task.apply_async((1,), idempotency_key="k")
        eventually(lambda: pay.calls == [1])
        app.control.revoke(first.id)
        with pytest.raises(TaskRevokedError):
            first.get(timeout=10)

        assert task.apply_async((2,), idempotency_key="k").get(timeout=10) == {"paid": 2}
    assert pay.calls == [1, 2]


def test_what_expires_before_its_next_run_lets_others_have_its_key(app: App, pay: Recorder) -> None:
    task = registered(app, pay, autoretry_for=(ValueError,), default_retry_delay=2)
    pay.gate.set()
    pay.fails = 1
    with working(app):
        first = task.apply_async((1,), idempotency_key="k", expires=1.5)
        eventually(lambda: pay.calls == [1])
        with pytest.raises(TaskExpired):
            first.get(timeout=10)

        assert task.apply_async((2,), idempotency_key="k").get(timeout=10) == {"paid": 2}
    assert pay.calls == [1, 2]


def test_what_expires_while_another_message_with_its_id_runs_leaves_that_its_key(
    app: App, pay: Recorder
) -> None:
    task = registered(app, pay)
    with working(app):
        first = task.apply_async((1,), task_id="twice", idempotency_key="k")
        eventually(lambda: pay.calls == [1])
        task.apply_async((1,), task_id="twice", idempotency_key="k", expires=0.001, ignore_result=True)
        other = task.apply_async((2,), idempotency_key="k")
        assert app.task(name="plain")(lambda: "after them").delay().get(timeout=10) == "after them"
        pay.gate.set()

        assert first.get(timeout=10) == other.get(timeout=10) == {"paid": 1}
    assert pay.calls == [1]


def test_hooks_are_not_called_for_what_is_not_run(app: App, pay: Recorder) -> None:
    seen: list[str] = []

    class Hooked(Task[..., Any]):
        def on_success(self, retval: Any, task_id: str, args: Any, kwargs: Any) -> None:
            seen.append(task_id)

    task = registered(app, pay, base=Hooked)
    pay.gate.set()
    with working(app):
        for task_id in ("a", "b"):
            task.apply_async((1,), idempotency_key="k", task_id=task_id).get(timeout=10)
    assert seen == ["a"]


def test_while_the_store_cannot_be_asked_the_task_waits(app: App, pay: Recorder) -> None:
    class Failing(MemoryStore):
        is_down = True

        def claim(self, key: str, holder: Holder, **options: Any) -> Claim:
            if self.is_down:
                raise OSError("no store")
            return super().claim(key, holder, **options)

    store = app.idempotency_store = Failing()
    task = registered(app, pay)
    pay.gate.set()
    with working(app):
        result = task.apply_async((1,), idempotency_key="k")
        app.task(name="plain")(lambda: None).delay().get(timeout=10)
        assert pay.calls == []
        store.is_down = False
        assert result.get(timeout=10) == {"paid": 1}


def test_without_a_store_a_key_is_not_heeded_and_that_is_said_once(
    pay: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    app = App("proj", broker=f"memory://{uuid4().hex}/")
    task = registered(app, pay)
    pay.gate.set()
    with working(app):
        for value in (1, 2):
            task.apply_async((value,), idempotency_key="k").get(timeout=10)
    app.close()
    assert pay.calls == [1, 2]
    assert sum("task_idempotency_store" in record.getMessage() for record in caplog.records) == 1


@pytest.mark.parametrize("key", ["", 7, "x" * 256])
def test_a_key_that_cannot_be_is_refused_at_the_call(app: App, pay: Recorder, key: Any) -> None:
    with pytest.raises(ConfigurationError, match="'idempotency_key' must be text of 1 to 255 bytes"):
        registered(app, pay).apply_async((1,), idempotency_key=key)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("memory://", "is known to one process only"),
        ("mongodb://host/db", "expected redis://, rediss:// or memory://, got 'mongodb://host/db'"),
        (
            "redis://:hush@host/x",
            r"expected the number of a database behind the slash, got 'redis://:\*\*@host:6379/x'",
        ),
    ],
)
def test_a_store_that_cannot_be_is_refused_when_the_worker_starts(url: str, said: str) -> None:
    app = App("proj", broker="amqp://nowhere.invalid", task_idempotency_store=url)
    with pytest.raises(ConfigurationError, match=said) as raised:
        app.Worker(pool="solo").start()
    assert "hush" not in str(raised.value)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    app = App("proj", broker="amqp://nowhere.invalid", task_idempotency_store="redis://host/0")

    with pytest.raises(ConfigurationError, match=r"pip install 'amqp-tasks\[redis\]'"):
        app.Worker(pool="solo").start()


def test_what_is_not_run_says_nothing_of_how_well_its_queue_does(app: App, pay: Recorder) -> None:
    app.conf.update(worker_breaker_ratio=1.0, worker_breaker_runs=2)
    task = registered(app, pay)
    pay.gate.set()
    with working(app):
        task.apply_async((1,), idempotency_key="done").get(timeout=10)
        pay.fails = 2
        for key in ("fails", "done", "fails"):
            with suppress(ValueError):
                task.apply_async((2,), idempotency_key=key).get(timeout=10)
        # Two runs of two failed, so that the queue is left alone; what comes before that is done may still be run.
        eventually(lambda: status_of(app) == (0, 0))
        task.apply_async((3,))
        eventually(lambda: status_of(app) == (1, 0))
    assert pay.calls == [1, 2, 2]


def status_of(app: App) -> tuple[int, int]:
    status = app.transport.queue_status("default")
    assert status is not None
    return status.messages, status.consumers
