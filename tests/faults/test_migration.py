"""A migration of a queue that is killed at every step, and run again: no message is lost. Row R14."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from support import RawClient, Vhost
from support.migrating import migrate
from support.workers import TESTS

MESSAGES = 20
CALLS_MADE = 13
POINTS = [
    *(f"{number}" for number in range(1, CALLS_MADE + 2)),
    *(f"message {number}" for number in (1, 20, 33)),
]
"""All calls to the broker that a migration makes and one more, and messages on both ways."""


def test_a_migration_that_is_killed_at_any_point_and_run_again_loses_nothing(
    vhost: Vhost, raw_client: RawClient, tmp_path: Path
) -> None:
    queues = {point: f"mail {point}" for point in POINTS}
    raw_client.channel.exchange_declare("amqp_tasks.delay.due", "topic", durable=True)
    for queue in queues.values():
        raw_client.declare(queue, {"x-queue-type": "classic"})
        for number in range(MESSAGES):
            raw_client.publish(queue, f"{number}".encode(), {"id": f"{number}", "task": "t"})

    outputs = kill_all(vhost.url, queues, tmp_path)
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(lambda queue: migrate(vhost.url, queue), queues.values()))

    # The last call is none: with more steps a migration would need more points here.
    assert {point for point, said in outputs.items() if said} == {f"{CALLS_MADE + 1}"}
    everything = {f"{number}" for number in range(MESSAGES)}
    for point, queue in queues.items():
        found = [message.body.decode() for message in raw_client.drain(queue)]
        assert set(found) == everything, point
        # Only what was confirmed at the moment of the kill, and whose ack was not on its way yet, is there twice.
        assert len(found) <= 2 * MESSAGES, (point, sorted(found))
    names = {queue["name"] for queue in vhost.queues()}
    assert not {name for name in names if name.endswith(".migrating")}
    assert all(vhost.queue(queue)["arguments"]["x-queue-type"] == "quorum" for queue in queues.values())


def kill_all(url: str, queues: dict[str, str], folder: Path) -> dict[str, str]:
    """Begin all migrations at once; each dies at its point. What each has said, which is nothing when it was killed."""
    env = {**os.environ, "PYTHONPATH": str(TESTS)}
    started = {
        point: subprocess.Popen(
            [sys.executable, "-m", "support.migrating", url, queue, point],
            cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        for point, queue in queues.items()
    }  # fmt: skip
    return {point: process.communicate(timeout=50)[0] for point, process in started.items()}
