"""The broker runs out of memory or disk: callers are told, workers finish what they have, all goes on afterwards."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from amqp_tasks.errors import BrokerBlocked, SendUnknown
from support import Ledger, PrivateNode, RawClient, WorkerProcesses, eventually
from support.worker_app import QUEUE
from support.worker_client import WorkerClient

pytestmark = pytest.mark.slow

LIMIT = 10.0
"""Seconds in which a call with a timeout of two must have ended on a busy machine."""


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_promise_03_an_alarm_is_told_to_callers_in_time_while_workers_finish_and_ack(
    private_node: PrivateNode,
    private_client: WorkerClient,
    private_raw: RawClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    kind: str,
) -> None:
    raise_alarm, clear_alarm = {
        "memory": (private_node.raise_memory_alarm, private_node.clear_memory_alarm),
        "disk": (private_node.raise_disk_alarm, private_node.clear_disk_alarm),
    }[kind]
    gate = tmp_path / "gate"
    worker = worker_process("-c", "2", app="support.worker_app:app")
    waiting = {f"key-{number}" for number in range(100)}
    private_client.many(sorted(waiting), "wait", str(gate))
    asked = private_client.act("asked", "ok")
    raise_alarm()
    eventually(lambda: _is_blocked(private_client), within=20)

    began = time.monotonic()
    with pytest.raises(BrokerBlocked) as raised:
        private_client.act("refused", timeout=2.0)
    took = time.monotonic() - began
    gate.touch()
    ledger.wait_for("done", count=101, within=30)
    # All acked but the one whose result cannot be sent: acks do not go over a connection that is blocked.
    eventually(lambda: _unacked(private_node) == 1, within=15)
    assert not asked.ready()
    clear_alarm()

    assert took < LIMIT
    assert kind in raised.value.reason
    assert asked.get(timeout=20) == "asked"
    after = private_client.act("after")
    assert after.get(timeout=20) == "after"
    assert worker.stop() == 0
    done = ledger.counts("done")
    del done["probe"]  # of which some came through before the alarm was heeded, or after it
    assert done == dict.fromkeys(waiting | {"asked", "after"}, 1)


def _is_blocked(client: WorkerClient) -> bool:
    """The broker tells at the first message that it will not take; that one may be stored when the alarm is over."""
    try:
        client.act("probe", ignore_result=True, timeout=2.0)
    except (SendUnknown, BrokerBlocked):
        return True
    return False


def _unacked(node: PrivateNode) -> int:
    return int(node.vhost.queue(QUEUE)["messages_unacknowledged"])
