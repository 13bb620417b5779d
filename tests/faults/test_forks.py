"""Callers with many threads, callers that fork while their connections are open, and both at once."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from support import Ledger, RawClient, Vhost, WorkerProcess, WorkerProcesses
from support.children import WAYS, keys_of_child, start_child
from support.nodes import free_port
from support.worker_client import WorkerClient
from support.workers import TESTS


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
@pytest.mark.parametrize("way", WAYS)
def test_promise_17_children_and_threads_of_a_caller_each_get_their_own_results(
    client: WorkerClient,
    vhost: Vhost,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    way: str,
) -> None:
    """Row U034."""
    worker = worker_process("-c", "2")
    client.act("first").get(timeout=10)
    over, sent = threading.Event(), list[str]()

    def go_on_calling(thread: int) -> None:
        number = 0
        while not over.is_set():
            key = f"thread-{thread}-{number}"
            assert client.act(key).get(timeout=20) == key
            sent.append(key)
            number += 1

    with ThreadPoolExecutor(4) as threads:
        calling = [threads.submit(go_on_calling, thread) for thread in range(4)]
        children = [start_child(way, client, vhost.url, number) for number in range(3)]
        statuses = [child.wait() for child in children]
        over.set()
        for each in calling:
            each.result(30)

    assert statuses == [0, 0, 0]
    assert client.act("last").get(timeout=10) == "last"
    assert worker.stop() == 0
    of_children = {key for number in range(3) for key in keys_of_child(number)}
    assert of_children <= set(ledger.keys("done"))


@pytest.mark.parametrize("count", [16, 64])
def test_promise_17_threads_of_a_caller_each_get_their_own_results(
    client: WorkerClient,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    raw_client: RawClient,
    count: int,
) -> None:
    worker = worker_process("-c", "2")
    keys = [f"key-{number}" for number in range(count * 5)]
    together = threading.Barrier(count)

    def call(keys: list[str]) -> list[str]:
        together.wait(20)
        return [client.act(key).get(timeout=20) for key in keys]

    with ThreadPoolExecutor(count) as threads:
        values = list(threads.map(call, [keys[thread::count] for thread in range(count)]))

    assert values == [keys[thread::count] for thread in range(count)]
    assert client.app.transport.statistics().connects == 2
    assert worker.stop() == 0


def test_promise_17_a_web_server_that_forks_after_loading_the_app_serves_from_each_worker(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, raw_client: RawClient, tmp_path: Path
) -> None:
    """Row U034."""
    worker = worker_process("-c", "2")
    port = free_port()
    server = _gunicorn(vhost.url, port, tmp_path)
    try:
        server.wait_output("Booting worker")
        keys = [f"key-{number}" for number in range(60)]
        with ThreadPoolExecutor(8) as visitors:
            answers = list(visitors.map(lambda key: _visit(port, key), keys))
        assert [value for value, _ in answers] == keys
        first_pids = {pid for _, pid in answers}
        assert server.pid not in first_pids

        os.kill(min(first_pids), signal.SIGKILL)
        server.wait_output("was sent SIGKILL")
        after = [f"after-{number}" for number in range(10)]

        assert [_visit(port, key)[0] for key in after] == after
        assert server.stop() == 0
    finally:
        assert server.close() == []
    assert worker.stop() == 0


def _gunicorn(url: str, port: int, folder: Path) -> WorkerProcess:
    options = ("--preload", "-w", "3", "--bind", f"127.0.0.1:{port}", "--worker-tmp-dir", str(folder))
    command = [sys.executable, "-m", "gunicorn", *options, "support.wsgi_app:application"]
    env = {**os.environ, "PYTHONPATH": str(TESTS), "AMQP_TASKS_BROKER_URL": url}
    return WorkerProcess(command, env=env, cwd=folder)


def _visit(port: int, key: str) -> tuple[str, int]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(f"http://127.0.0.1:{port}/{key}", timeout=30) as answer:
        value, pid = json.loads(answer.read())
    return value, pid
