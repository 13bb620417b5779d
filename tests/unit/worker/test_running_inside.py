"""A worker of `memory://`, inside the calling process: the whole path without a broker."""

from __future__ import annotations

import errno
import threading
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import pytest

from amqp_tasks import App, chord
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import (
    ChordError,
    ConfigurationError,
    EncodeError,
    Reject,
    SoftTimeLimitExceeded,
    TaskError,
    TaskRevokedError,
)
from amqp_tasks.idempotency import Holder, MemoryStore
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import ConsumerEvent, ConsumerOptions, Delivery, Settlement
from amqp_tasks.transport.memory._consumer import MemoryConsumer
from amqp_tasks.transport.memory._transport import MemoryTransport
from amqp_tasks.worker import Worker
from amqp_tasks.worker._loop import Loop
from support import eventually
from support.health import Health
from support.inside import running


@pytest.fixture
def app() -> Iterator[App]:
    with App("inside", broker="memory://") as made:
        yield made


@pytest.fixture
def broker() -> str:
    """A broker of one test."""
    return f"memory://{uuid.uuid4().hex}/"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> list[Settlement]:
    """How the deliveries of the default queue end."""
    ends: list[Settlement] = []
    settle = MemoryConsumer.settle

    def note(consumer: MemoryConsumer, delivery: Delivery, settlement: Settlement) -> None:
        if delivery.queue_name == "default":
            ends.append(settlement)
        settle(consumer, delivery, settlement)

    monkeypatch.setattr(MemoryConsumer, "settle", note)
    return ends


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_worker_whose_control_thread_dies_ends_with_an_error(
    app: App, monkeypatch: pytest.MonkeyPatch, pool: str
) -> None:
    worker: Worker = app.Worker(pool=pool)
    codes: SimpleQueue[int] = SimpleQueue()
    thread = threading.Thread(target=lambda: codes.put(worker.start()), name="worker-under-test")
    thread.start()
    assert worker.ready.wait(15)

    def fail(_loop: Loop) -> float:
        raise OSError(errno.EBADF, "descriptors were closed under it")

    monkeypatch.setattr(Loop, "_next_wait", fail)

    assert codes.get(timeout=15) == 1
    thread.join(15)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_one_says_how_it_is(broker: str, tmp_path: Path, pool: str) -> None:
    health = Health(tmp_path / "health.json")
    with App("well", broker=broker, worker_health_file=str(health.path)) as app:
        with running(app, pool=pool, concurrency=1):
            eventually(lambda: health.is_ready)
            eventually(lambda: health.report["state"] == "running")
            assert health.is_live
            assert [each["consumed"] for each in health.report["processes"]] == [["default"]]
        assert not health.path.exists()


@pytest.mark.parametrize("pool", [None, "threads", "solo"])
def test_tasks_run_in_the_calling_process(app: App, pool: str | None) -> None:
    seen: list[str] = []

    @app.task
    def add(x: int, y: int) -> int:
        seen.append(threading.current_thread().name)
        return x + y

    with running(app, pool=pool, concurrency=None if pool == "solo" else 2):
        assert add.delay(2, 3).get(timeout=10) == 5

    assert seen[0].startswith("worker-under-test" if pool == "solo" else "amqp-tasks-slot")


def test_failures_and_unknown_tasks_reach_the_caller(app: App) -> None:
    @app.task
    def fail() -> None:
        raise ValueError("no")

    with running(app):
        with pytest.raises((TaskError, ValueError), match="no"):
            fail.delay().get(timeout=10)
        with pytest.raises(TaskError):
            app.send_task("missing").get(timeout=10)

        assert app.transport.queue_status("default.dead").messages == 1  # type: ignore[union-attr]  # it is declared


@pytest.mark.parametrize("result_backend", ["rpc://", None])
@pytest.mark.parametrize("acks_late", [True, False])
def test_a_failure_that_goes_to_nobody_is_kept_with_its_traceback(
    broker: str, result_backend: str | None, acks_late: bool
) -> None:
    with App("inside", broker=broker, result_backend=result_backend) as app:

        @app.task(ignore_result=True, acks_late=acks_late)
        def fail() -> None:
            raise KeyError("nobody is told")

        with running(app):
            # A sender whose app has a backend may want what this worker's has not.
            sent = fail.apply_async(reply_to="" if result_backend else "somewhere")
            eventually(lambda: _depth(app, "default.dead") == 1, within=10)
            assert _depth(app, "default") == 0

        headers = _first(app, "default.dead").properties.headers
    assert headers["id"] == sent.id
    assert headers["x-error-reason"] == "failed"
    assert headers["x-error-type"] == "KeyError"
    assert headers["x-error-message"] == "'nobody is told'"
    assert 'raise KeyError("nobody is told")' in headers["x-error-traceback"]
    assert headers["x-error-attempts"] == 1
    assert headers["x-error-first-time"] == headers["x-error-time"]
    assert headers["x-error-queue"] == "default"


def test_after_its_retries_it_is_kept_with_all_attempts_and_the_first_time(broker: str) -> None:
    with App("inside", broker=broker) as app:

        @app.task(ignore_result=True, autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0)
        def fail() -> None:
            raise ValueError("still")

        with running(app):
            fail.delay()
            eventually(lambda: _depth(app, "default.dead") == 1, within=15)

        (letter,) = app.dead_letters.find()
    assert (letter.reason, letter.error_type, letter.attempts) == ("failed", "ValueError", 3)
    assert letter.first_time is not None
    assert letter.time is not None
    assert letter.first_time < letter.time


def test_a_failure_that_somebody_is_told_is_not_kept_twice(broker: str) -> None:
    with App("inside", broker=broker) as app:

        @app.task
        def fail() -> None:
            raise ValueError("told")

        with running(app), pytest.raises((TaskError, ValueError), match="told"):
            fail.delay().get(timeout=10)

        assert _depth(app, "default.dead") == 0


@pytest.mark.parametrize("by_setting", [True, False])
def test_a_failure_that_is_told_is_kept_too_where_failures_are_not_acked(
    broker: str, by_setting: bool
) -> None:
    with App("inside", broker=broker, task_acks_on_failure=not by_setting) as app:

        @app.task(acks_on_failure=None if by_setting else False)
        def fail(text: str) -> None:
            raise ValueError(text)

        @app.task(acks_on_failure=True)
        def fail_as_usual() -> None:
            raise ValueError("told")

        with running(app):
            with pytest.raises(ValueError, match="told"):
                fail_as_usual.delay().get(timeout=10)
            with pytest.raises(ValueError, match="kept"):
                fail.delay("kept").get(timeout=10)

        (letter,) = app.dead_letters.find()
    assert (letter.reason, letter.error_type, letter.task) == ("failed", "ValueError", fail.name)


def test_without_dead_letter_queues_a_failure_that_goes_to_nobody_is_acked(broker: str) -> None:
    with App("inside", broker=broker, task_dead_letter_queues=False) as app:

        @app.task(ignore_result=True)
        def fail() -> None:
            raise ValueError("nobody is told")

        @app.task
        def fine() -> int:
            return 1

        with running(app, pool="solo"):
            fail.delay()
            assert fine.delay().get(timeout=10) == 1

        # What was not acked would be back by now.
        assert _depth(app, "default") == 0
        assert app.transport.queue_status("default.dead") is None


@pytest.fixture
def refuses_next_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """No first retry can be published to the default queue."""
    publish = MemoryTransport.publish_nowait

    def refuse(transport: MemoryTransport, message: OutgoingMessage, *args: Any, **options: Any) -> None:
        if message.properties.headers.get("retries") == 1 and message.routing_key == "default":
            raise EncodeError("a header of the next run")
        publish(transport, message, *args, **options)

    monkeypatch.setattr(MemoryTransport, "publish_nowait", refuse)


@pytest.mark.usefixtures("refuses_next_runs")
@pytest.mark.parametrize("has_dead_letters", [True, False])
def test_who_waits_is_told_that_a_next_run_can_never_be_published(
    broker: str, settled: list[Settlement], has_dead_letters: bool
) -> None:
    with App("inside", broker=broker, task_dead_letter_queues=has_dead_letters) as app:

        @app.task(bind=True)
        def again(self: Any) -> None:
            raise self.retry(countdown=0)

        with running(app), pytest.raises(EncodeError, match="a header of the next run"):
            again.delay().get(timeout=10)

        assert len(app.dead_letters.find()) == has_dead_letters
        # A dead letter is no end; what has ended and lies nowhere must be counted, or it is missing.
        assert app.transport.tally.has_ends is not has_dead_letters
    assert settled == [Settlement.ACK]


@pytest.mark.usefixtures("refuses_next_runs")
@pytest.mark.parametrize("has_dead_letters", [True, False])
def test_the_rest_of_a_workflow_is_told_that_a_next_run_can_never_be_published(
    broker: str, has_dead_letters: bool
) -> None:
    with App("inside", broker=broker, task_dead_letter_queues=has_dead_letters) as app:

        @app.task(bind=True)
        def again(self: Any) -> None:
            raise self.retry(countdown=0)

        @app.task
        def total(values: list[int]) -> int:
            return sum(values)

        with running(app), pytest.raises(ChordError, match="a header of the next run"):
            chord([again.s()], total.s()).delay().get(timeout=10)


@pytest.mark.usefixtures("refuses_next_runs")
def test_others_may_have_the_idempotency_key_of_a_task_whose_next_run_can_never_be_published(
    broker: str,
) -> None:
    with App("inside", broker=broker) as app:
        app.idempotency_store = MemoryStore()

        @app.task(bind=True)
        def again(self: Any, is_last: bool) -> str:
            if not is_last:
                raise self.retry(countdown=0)
            return "ran"

        with running(app):
            with pytest.raises(EncodeError):
                again.apply_async((False,), idempotency_key="one").get(timeout=10)
            # One that waits for the key asks again after five seconds.
            assert again.apply_async((True,), idempotency_key="one").get(timeout=4) == "ran"


@pytest.mark.usefixtures("refuses_next_runs")
def test_a_store_that_hangs_when_a_key_is_given_up_holds_up_no_join(broker: str) -> None:
    class Hanging(MemoryStore):
        asked, let = threading.Event(), threading.Event()

        def release(self, key: str, holder: Holder) -> None:
            self.asked.set()
            self.let.wait(30)
            super().release(key, holder)

    with App("inside", broker=broker) as app:
        app.idempotency_store = store = Hanging()

        @app.task(bind=True)
        def again(self: Any) -> None:
            raise self.retry(countdown=0)

        @app.task
        def total(values: list[int]) -> int:
            return sum(values)

        with running(app):
            given_up = again.apply_async(idempotency_key="one")
            assert store.asked.wait(10)

            joined = chord([total.s([1]), total.s([2])], total.s()).delay()

            try:
                assert joined.get(timeout=10) == 3
            finally:
                store.let.set()
            with pytest.raises(EncodeError):
                given_up.get(timeout=10)


@pytest.mark.parametrize(("acks_on_failure", "end"), [(True, Settlement.ACK), (False, Settlement.DROP)])
def test_without_dead_letter_queues_a_failure_that_is_not_acked_is_left_to_the_broker(
    broker: str, settled: list[Settlement], acks_on_failure: bool, end: Settlement
) -> None:
    with App("inside", broker=broker, task_dead_letter_queues=False) as app:

        @app.task(acks_on_failure=acks_on_failure)
        def fail() -> None:
            raise ValueError("told")

        with running(app), pytest.raises(ValueError, match="told"):
            fail.delay().get(timeout=10)

    assert settled == [end]


def test_without_dead_letter_queues_what_is_refused_is_left_to_the_broker(
    broker: str, settled: list[Settlement]
) -> None:
    with App("inside", broker=broker, task_dead_letter_queues=False) as app:

        @app.task
        def reject() -> None:
            raise Reject("not ours")

        with running(app, pool="solo"), pytest.raises(TaskError, match="not ours"):
            reject.delay().get(timeout=10)

    assert settled == [Settlement.DROP]


def test_who_waits_is_told_of_a_refusal_that_cannot_be_written_as_a_dead_letter(
    broker: str, settled: list[Settlement], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_args: Any, **_options: Any) -> OutgoingMessage:
        raise RuntimeError("a fault of ours")

    monkeypatch.setattr("amqp_tasks.worker._engine.dead_letter_of", fail)
    with App("inside", broker=broker) as app:

        @app.task
        def reject() -> None:
            raise Reject("not ours")

        with running(app), pytest.raises(TaskError, match="not ours"):
            reject.delay().get(timeout=10)

    assert settled == [Settlement.DROP]


def test_an_exception_without_a_text_is_kept_all_the_same(broker: str) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    with App("inside", broker=broker) as app:

        @app.task(ignore_result=True, throws=(Mute,))
        def fail() -> None:
            raise Mute

        with running(app):
            fail.delay()
            eventually(lambda: _depth(app, "default.dead") == 1, within=10)

        headers = _first(app, "default.dead").properties.headers
    assert headers["x-error-type"] == Mute.__qualname__
    assert "cannot be made" in headers["x-error-message"]


def test_a_warm_stop_waits_for_the_running_task_and_requeues_the_rest(app: App) -> None:
    entered, gate = threading.Event(), threading.Event()

    @app.task
    def wait(name: str) -> str:
        entered.set()
        gate.wait(10)
        return name

    with running(app, pool="solo", prefetch_multiplier=5) as worker:
        first = wait.delay("first")
        assert entered.wait(10)
        others = [wait.delay(f"{n}") for n in range(3)]
        stopper = threading.Thread(target=worker.stop)
        stopper.start()
        gate.set()
        assert first.get(timeout=10) == "first"
        stopper.join(10)

    left = app.transport.queue_status("default")
    assert left is not None
    assert left.messages + sum(result.ready() for result in others) == 3


def test_prefork_is_refused_with_the_embedded_broker(app: App) -> None:
    with pytest.raises(ConfigurationError, match="memory:// lives in one process"):
        app.Worker(pool="prefork").start()


def test_a_worker_whose_consumer_cannot_be_made_ends_with_the_reason(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def consume(*args: Any, **options: Any) -> None:
        raise ConfigurationError("no consumer for you")

    monkeypatch.setattr(app.transport, "consume", consume)

    with pytest.raises(ConfigurationError, match="no consumer for you"):
        app.Worker(pool="threads").start()


def test_a_connection_that_cannot_be_closed_does_not_keep_the_worker(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    def close(*args: Any, **options: Any) -> None:
        raise OSError("not now")

    with running(app, may_fail=True) as worker:
        monkeypatch.setattr("amqp_tasks.worker._engine.Engine.close", close)
        assert worker.stop(timeout=2)
        monkeypatch.undo()


def _depth(app: App, queue_name: str) -> int:
    status = app.transport.queue_status(queue_name)
    assert status is not None
    return status.messages


def _first(app: App, queue_name: str) -> Delivery:
    """The message at the head of a queue, which is handed back."""
    got: SimpleQueue[Delivery] = SimpleQueue()
    consumer = app.transport.consume(
        [queue_name],
        ConsumerOptions(prefetch=1),
        on_deliveries=lambda batch: got.put(batch[0]),
        on_event=_ignore,
    )
    try:
        return got.get(timeout=10)
    finally:
        consumer.close(timeout=5)


def _ignore(event: ConsumerEvent) -> None:
    """Nobody asks."""


def test_in_memory_a_hard_limit_is_said_and_not_enforced(caplog: pytest.LogCaptureFixture) -> None:
    with App("limited", broker="memory://", task_time_limit=0.02) as app:

        @app.task
        def outlast() -> str:
            end = SYSTEM_CLOCK.monotonic() + 0.05
            while SYSTEM_CLOCK.monotonic() < end:
                pass
            return "done"

        with running(app):
            assert outlast.delay().get(timeout=10) == "done"
    assert "the hard time limit of all tasks (task_time_limit) is not enforced" in caplog.text


def test_tasks_whose_hard_limits_the_pool_cannot_enforce_are_named_at_the_start(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    """Row U066."""
    for number in range(7):
        app.task(name=f"limited{number}", time_limit=60)(_nothing)
    app.task(name="free", soft_time_limit=60)(_nothing)

    with running(app, pool="threads"):
        app.tasks["limited0"].delay().get(timeout=10)
        (at_start,) = _hard_limits_said(caplog)
        app.tasks["free"].apply_async(time_limit=70).get(timeout=10)

    assert at_start == (
        "the hard time limit of task limited0, limited1, limited2, limited3, limited4 and 2 more is not enforced, as pool"
        " 'threads' cannot end a task: use worker_pool='prefork', or a soft_time_limit"
    )
    assert "a call of task free has a hard time limit" in _hard_limits_said(caplog)[1]


def _hard_limits_said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if "hard time limit" in record.getMessage()]


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_a_soft_limit_interrupts_and_can_be_caught(app: App, pool: str) -> None:
    @app.task(soft_time_limit=0.3)
    def endless() -> None:
        while True:
            pass

    @app.task(soft_time_limit=0.3)
    def tidy() -> str:
        with suppress(SoftTimeLimitExceeded):
            endless()
        return "cleaned up"

    with running(app, pool=pool):
        assert tidy.delay().get(timeout=10) == "cleaned up"
        with pytest.raises(SoftTimeLimitExceeded, match=r"soft time limit of 0\.3 s exceeded"):
            endless.delay().get(timeout=10)


@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_what_is_revoked_is_refused(broker: str, pool: str, caplog: pytest.LogCaptureFixture) -> None:
    ran: list[str] = []
    with App("inside", broker=broker) as app:

        @app.task
        def note(name: str) -> None:
            ran.append(name)

        @app.task
        def wait(seconds: float) -> None:
            started.set()
            gate.wait(seconds)

        started, gate = threading.Event(), threading.Event()
        before = note.delay("before")
        before.revoke()
        pardoned = note.delay("pardoned")
        app.control.revoke(pardoned.id)
        app.control.unrevoke(pardoned.id)
        with running(app, pool=pool, concurrency=1):
            pardoned.get(timeout=10)
            blocking = wait.delay(10)
            assert started.wait(10)
            waiting = note.map_async([("a",), ("b",)])
            waiting.revoke()
            late = note.apply_async(("late",), task_id="late", countdown=0.3)
            app.control.revoke(iter(["late"]))
            # It has heard what was said before when it says that it cannot do this.
            blocking.revoke(terminate=True)
            eventually(lambda: "is to be terminated" in caplog.text)
            gate.set()
            blocking.get(timeout=10)
            for result in (before, *waiting, late):
                with pytest.raises(TaskRevokedError):
                    result.get(timeout=10)

        assert _depth(app, "default.dead") == 0
    assert ran == ["pardoned"]


def test_a_task_whose_own_serializer_is_not_accepted_is_told_at_the_start(
    app: App, caplog: pytest.LogCaptureFixture
) -> None:
    for name, serializer in (
        ("packed", "msgpack"),
        ("plain", "json"),
        ("typed", "application/json"),
        ("usual", None),
    ):
        app.task(name=name, serializer=serializer)(_nothing)

    with running(app):
        pass

    (said,) = [record.getMessage() for record in caplog.records if "accept_content" in record.getMessage()]
    assert said == (
        "calls of task packed are written with serializer='msgpack', which is not in accept_content=('json',), so they are"
        " refused here: add it to accept_content"
    )


def _nothing() -> None: ...


@pytest.mark.parametrize("wrong", [3, None, b"id", [3], [["id"]]])
def test_what_is_no_text_is_told_with_what_to_give(broker: str, wrong: Any) -> None:
    with App("inside", broker=broker) as app:
        for say in (app.control.revoke, app.control.unrevoke, app.control.terminate):
            with pytest.raises(
                ConfigurationError, match=r"a task id must be text, got .*: give one, or a list"
            ):
                say(wrong)
        for tell in (app.control.pause, app.control.resume):
            with pytest.raises(ConfigurationError, match=r"a queue name must be text, got .*: give one, or"):
                tell(wrong)

        assert app.transport.queue_status("amqp_tasks.journal") is None


@pytest.mark.parametrize("wrong", ["", "x" * 256, 7])
def test_an_id_that_no_task_can_have_is_refused(broker: str, wrong: Any) -> None:
    with App("inside", broker=broker) as app:
        with pytest.raises(ConfigurationError, match="task id"):
            app.control.revoke([wrong])
        app.control.revoke([])

        assert app.transport.queue_status("amqp_tasks.journal") is None


def test_an_unknown_signal_is_refused(app: App) -> None:
    for wrong in ("SIGNONE", 4711, ""):
        with pytest.raises(ConfigurationError, match="unknown signal"):
            app.control.terminate("x", wrong)
