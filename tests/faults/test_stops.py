"""Workers are told to stop at every stage of their life, under load."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from support import Vhost, WorkerProcess
from support.conservation import Outcome
from support.fault_run import FaultRun, fault_run


def test_promise_15_a_stop_at_every_stage_keeps_the_law_and_its_exit_code(
    vhost: Vhost, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    short = {"AMQP_TASKS_WORKER_STOP_TIMEOUT": "1"}
    with fault_run(vhost.url, folder=tmp_path) as run:
        run.start()

        assert _stop(run, run.add_worker(ready=r"^\[config\]"), signals=1) == 0  # not yet ready
        # Those that have time to end what they run; no task is repeated for that: it is no fault.
        for worker in run.workers[:2]:
            run.add_worker(env=short)
            assert _stop(run, worker, signals=1) == 0
        run.send("held", "wait", str(gate))
        with run.fault("second signal"):
            assert _stop(run, _worker_of_held(run, 1), signals=2) == 1
        run.add_worker(env=short)
        with run.fault("deadline"):
            assert _stop(run, _worker_of_held(run, 2), signals=1) == 1
        run.add_worker()
        gate.touch()
        run.wait_done(20)
        outcome = run.finish()

    assert outcome.executed["held"] == 1
    assert outcome.started["held"] == 3


@pytest.mark.slow
def test_stops_under_load_refuse_and_lose_nothing(short_run: Callable[[str], Outcome]) -> None:
    outcome = short_run("stop")

    assert outcome.refused | outcome.unknown == set()
    assert set(outcome.statuses) <= {0, 1}


def _worker_of_held(run: FaultRun, run_number: int) -> WorkerProcess:
    return run.worker_of(run.ledger.wait_for("start", "held", count=run_number)[-1].pid)


def _stop(run: FaultRun, worker: WorkerProcess, *, signals: int) -> int | None:
    for number in range(signals):
        if number:
            worker.wait_output("warm stop")
        worker.signal(signal.SIGTERM)
    return run.end(worker)
