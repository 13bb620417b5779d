"""What a worker process makes of entries of the journal."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest

from amqp_tasks import App
from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.idempotency import Holder, MemoryStore
from amqp_tasks.message import Envelope, JournalEntry
from amqp_tasks.transport import ConsumerEvent, ConsumerState, Delivery, Settlement
from amqp_tasks.worker._alone import Alone
from amqp_tasks.worker._engine import Engine
from amqp_tasks.worker._job import name_of
from amqp_tasks.worker._leases import Leases
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._options import Asked, resolve
from amqp_tasks.worker._process import ProcessReports, WorkerProcess
from amqp_tasks.worker._rates import rates_of
from amqp_tasks.worker._records import RecordTable
from support.fake_deliveries import job_of, key


@pytest.fixture
def process() -> Iterator[WorkerProcess]:
    """One that does not run: what it is told is done when its loop is let run."""
    with App("learning", broker="memory://learning/") as app:
        app.finalize()
        options, loop = resolve(app, Asked(), default_pool="solo"), Loop()
        writer = JournalWriter(app.transport, app.settings)
        records = RecordTable(1, 1).of_process(0)
        rate_limits = rates_of(app, clock=SYSTEM_CLOCK)
        yield WorkerProcess(
            app,
            options,
            records=records,
            verdicts=Alone(writer, records, claim_after=60.0, loop=loop),
            rate_limits=rate_limits,
            reports=ProcessReports(
                event=print, queues=print, recycling=print, ended=print, ran=print, broken=print
            ),
            loop=loop,
            owns_transport=False,
        )
        rate_limits.close()
        loop.close()


class Terminations:
    """Which of some running tasks were to be ended."""

    def __init__(self, running: list[Envelope]) -> None:
        self._running = running
        self.ended: list[str] = []

    def terminate(self, is_meant: Callable[[Envelope], bool]) -> bool:
        found = [envelope.id for envelope in self._running if is_meant(envelope)]
        self.ended += found
        return bool(found)


def _task(task_id: str, **stamps: Any) -> Envelope:
    envelope = job_of(task_id, headers={"stamped_headers": [*stamps], "stamps": stamps}).envelope
    assert envelope is not None
    return envelope


def _entry(kind: str, *, age: float = 0.0, **facts: Any) -> JournalEntry:
    time = SYSTEM_CLOCK.now().timestamp() - age
    return JournalEntry(kind=kind, id="e", time=time, sender="s", facts=facts)


def _learn(process: WorkerProcess, *entries: JournalEntry) -> None:
    process.learn(entries)
    process.loop.call_soon(process.loop.stop)
    process.loop.run()


@pytest.fixture
def terminations(process: WorkerProcess, monkeypatch: pytest.MonkeyPatch) -> Terminations:
    """Three tasks run, two of them with a stamp."""
    made = Terminations([_task("a"), _task("b", batch="b-1"), _task("c", batch="b-2")])
    monkeypatch.setattr(process._engine, "terminate", made.terminate)
    return made


class HangingStore(MemoryStore):
    """One that renews no lease before it is let."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.let = threading.Event(), threading.Event()

    def renew(self, key: str, holder: Holder, *, lease: float) -> None:
        self.asked.set()
        self.let.wait(30)


def _wait_for(event: threading.Event) -> None:
    event.wait(30)


class SlowConsumer:
    """One whose closing takes all the time that it is given."""

    given = 0.0

    def close(self, *, timeout: float) -> None:
        self.given = timeout
        threading.Event().wait(timeout)


def test_whatever_hangs_when_a_process_closes_one_time_holds_for_all_and_the_consumer_has_half_of_it(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, store, consumers = process._engine, HangingStore(), (SlowConsumer(), SlowConsumer())
    monkeypatch.setattr("amqp_tasks.worker._leases.EVERY", 0.01)
    engine._once._leases = Leases(store)
    engine._once._leases.hold("key", Holder("task", "run"), _task("a"))
    looking = threading.Event()
    for aside in (engine._follow_ups._joiner._aside, engine._tokens._keeper._aside):
        aside.put(looking.set)
        aside.put(partial(_wait_for, store.let))
    engine._tokens._consumer, engine._consumer = cast("Any", consumers)
    assert store.asked.wait(10)
    assert looking.wait(10)
    began = time.monotonic()

    engine.close(timeout=1.0)

    took = time.monotonic() - began
    store.let.set()
    engine._consumer = None
    engine.close(timeout=10)
    assert took < 1.4
    assert consumers[1].given > 0.4


def test_running_tasks_are_ended_by_id_and_by_stamp(
    process: WorkerProcess, terminations: Terminations
) -> None:
    _learn(
        process,
        _entry("revoke", ids=["a"], terminate=True),
        _entry("revoke-stamps", stamps={"batch": ["b-2"]}, terminate=True),
    )

    assert terminations.ended == ["a", "c"]


def test_a_termination_that_was_taken_back_ends_nothing(
    process: WorkerProcess, terminations: Terminations
) -> None:
    _learn(
        process,
        _entry("revoke", ids=["a"], terminate=True),
        _entry("revoke-stamps", stamps={"batch": ["b-1", "b-2"]}, terminate=True),
        _entry("unrevoke", ids=["a"]),
        _entry("unrevoke-stamps", stamps={"batch": ["b-1"]}),
    )

    assert terminations.ended == ["c"]


def test_a_termination_that_is_too_old_ends_nothing(
    process: WorkerProcess, terminations: Terminations
) -> None:
    _learn(
        process,
        _entry("revoke", age=31 * 86_400, ids=["a"], terminate=True),
        _entry("revoke-stamps", age=31 * 86_400, stamps={"batch": ["b-1"]}, terminate=True),
    )

    assert terminations.ended == []


def test_a_malformed_termination_keeps_no_pause_from_being_heeded(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[list[str]] = []
    monkeypatch.setattr(Engine, "pause_queues", lambda _engine, names: paused.append(sorted(names)))

    _learn(
        process,
        _entry("revoke-stamps", stamps={"batch": ["b-1"]}, terminate="yes"),
        _entry("pause", queues=["default"]),
    )

    assert paused == [["default"]]


class _NoConsumer:
    """Takes settlements of deliveries that never were."""

    def settle(self, delivery: Delivery, settlement: Settlement) -> None: ...


@pytest.mark.parametrize("word", ["finished", "refused"])
def test_the_last_word_of_a_task_that_ends_while_its_connection_is_lost_is_how_it_has_ended(
    process: WorkerProcess, monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    """Else its redelivery, or what is sent under its id another day, would be held for as long as this process lives."""
    engine, told = process._engine, list[tuple[str, str]]()
    for said in ("open", "finished", "refused"):
        monkeypatch.setattr(
            Alone,
            f"tell_{said}",
            lambda _, keys, said=said: told.extend((said, name_of(key)) for key in keys),
        )
    monkeypatch.setattr(engine._settler, "consumer", _NoConsumer(), raising=False)
    for name in ("ends", "goes on"):
        engine.begin(job_of(name))
    lose = engine._ledger.lose

    def lose_and_end(epoch: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
        found = lose(epoch)
        ending = engine._ledger._open[key("ends")]
        # As its slot may, between what the I/O thread looks at and what it tells.
        if word == "finished":
            engine._settler.acknowledge(ending)
        else:
            engine._settler.drop(ending, None)
        return found

    monkeypatch.setattr(engine._ledger, "lose", lose_and_end)

    engine._on_event(ConsumerEvent(state=ConsumerState.LOST, epoch=1))

    assert [what for what, name in told if name == "ends"] == [word, "open", word]
    assert [what for what, name in told if name == "goes on"] == ["open"]
