"""HUP: all processes are replaced, nothing is interrupted."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from support import Ledger, RawClient, WorkerProcesses, eventually
from support.conservation import assert_conserved
from support.worker_client import WorkerClient

APP = "support.worker_app:app"
pytestmark = pytest.mark.usefixtures("ledger")


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_hangup_replaces_all_processes_and_lets_running_tasks_end(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    tmp_path: Path,
    pool: str,
) -> None:
    gate = tmp_path / "gate"
    worker = worker_process("-c", "2", "-P", pool, app=APP)
    template = next(pid for pid in worker.children() if psutil.Process(pid).ppid() == worker.pid)
    before = set(worker.children()) - {template}
    running = client.act("running", "wait", str(gate))
    ledger.wait_for("start", "running")

    worker.signal(signal.SIGHUP)
    eventually(lambda: len(set(worker.children()) - before - {template}) == len(before), within=15)
    # Served although a process of before is still busy.
    assert client.act("meanwhile").get(timeout=15) == "meanwhile"
    assert ledger.keys("done") == ["meanwhile"]
    gate.touch()

    assert running.get(timeout=15) == "running"
    eventually(lambda: not before & set(worker.children()), within=15)
    assert client.act("after").get(timeout=15) == "after"
    assert worker.stop() == 0
    assert_conserved({"running", "meanwhile", "after"}, ledger, raw_client)
    assert sorted(ledger.keys("start")) == ["after", "meanwhile", "running"]
