"""Scenario 1: processes and whole workers are killed under load, by others and by their own tasks."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support import Vhost
from support.fault_run import FaultRun, fault_run


def test_killed_processes_and_workers_lose_nothing(vhost: Vhost, tmp_path: Path) -> None:
    with fault_run(vhost.url, folder=tmp_path) as run:
        run.start()
        for _ in range(3):
            with run.fault("process killed"):
                _kill_a_process(run)
            run.wait_done(20)
        with run.fault("worker killed"):
            run.workers[0].kill_all()
        run.add_worker()
        run.wait_done(50)
        outcome = run.finish()

    outcome.check()
    assert len(outcome.accepted) > 100
    assert outcome.refused == outcome.unknown == set()
    assert outcome.statuses[1:] == (0, 0)


def _kill_a_process(run: FaultRun) -> None:
    """The one that began the latest task."""
    os.kill(run.ledger.entries("start")[-1].pid, signal.SIGKILL)
