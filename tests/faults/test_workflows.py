"""Chords whose workers die, or whose broker goes away, while their outcomes come together: the body runs."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest

from amqp_tasks import App, chain, chord, group
from support import Ledger, PrivateNode, TcpProxy, Vhost, WorkerProcesses, eventually
from support.inside import running
from support.workflow_app import (
    add,
    app,
    fuse,
    fuse_behind,
    fuse_early,
    gated,
    gather,
    hold_join,
    hold_look,
    lose_join,
    named,
    replaced,
    slow_step,
)

APP = "support.workflow_app:app"
WEEK = 7 * 86_400.0


@pytest.mark.parametrize(
    ("point", "most"),
    [("before the look", 1), ("after the queue was taken", 1), ("after the body was published", 2)],
)
def test_a_worker_that_dies_at_a_join_leaves_it_to_another(
    vhost: Vhost,
    ledger: Ledger,
    worker_process: WorkerProcesses,
    tmp_path: Path,
    point: str,
    most: int,
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"

    members = [add.s(1, 1), fuse.s(0, point, str(marker))]
    try:
        assert chord(members, gather.s("it"))().get(timeout=30) == [2, 0]
        eventually(lambda: _no_joins(vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)

    assert marker.exists()
    # At least once, as any task; twice only where the body was confirmed before the death.
    assert 1 <= ledger.keys("gather").count("it") <= most


def test_what_replaces_a_task_runs_when_it_is_redelivered_before_it_has_begun(
    vhost: Vhost, worker_process: WorkerProcesses, proxy: TcpProxy, tmp_path: Path
) -> None:
    app.conf.update(broker_url=vhost.url)
    go = tmp_path / "go"
    try:
        result = replaced.delay(0, add.si(2, 2))
        blocker = gated.delay(5, str(go))
        env = {"AMQP_TASKS_BROKER_URL": proxy.url_for()}
        worker = worker_process("-P", "solo", "--prefetch-multiplier", "2", app=APP, env=env)
        worker.wait_output(r"Task add\[")  # behind the one that runs

        accepted = proxy.accepted
        proxy.cut()
        eventually(lambda: proxy.accepted > accepted, within=20)
        go.touch()

        assert [each.get(timeout=20) for each in (blocker, result)] == [5, 4]
        assert worker.stop() == 0
    finally:
        app.resources.close(timeout=5.0)


def test_a_join_whose_last_look_died_outlives_worker_and_broker(
    private_node: PrivateNode, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    before = app.settings.task.chord_timeout
    app.conf.update(broker_url=private_node.url, task_chord_timeout=40.0)
    # Without processes of its own: the death of the task is that of the worker.
    worker = worker_process("-P", "solo", app=APP)
    try:
        result = chord([add.s(1, 1), fuse_early.s(5, str(tmp_path / "died"))], gather.s("it"))()
        worker.wait(within=20)
        private_node.restart()
        worker_process("-c", "1", app=APP)

        assert result.get(timeout=50) == [2, 5]
        eventually(lambda: _no_joins(private_node.vhost), within=15)
    finally:
        app.conf.update(task_chord_timeout=before)
        app.resources.close(timeout=5.0)


@pytest.mark.parametrize("option", ["link", "link_error"])
def test_what_a_task_is_followed_by_has_one_id_however_often_its_worker_dies(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path, option: str
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    marker = tmp_path / "died"
    try:
        call = fuse_behind.s(str(marker), option == "link_error")
        (call.link(named.s()) if option == "link" else call.on_error(named.s())).delay()
        # Confirmed before the death, and again by the second run.
        eventually(lambda: len(ledger.keys("named")) == 2, within=20)
    finally:
        app.resources.close(timeout=5.0)

    assert marker.exists()
    assert len(set(ledger.keys("named"))) == 1


def test_a_look_that_loses_its_connection_is_taken_again(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP)
    try:
        assert chord([add.s(1, 1), lose_join.s(5)], gather.s())().get(timeout=20) == [2, 5]
        eventually(lambda: _no_joins(vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)


def test_a_join_that_cannot_be_looked_at_keeps_no_other_waiting(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, tmp_path: Path
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "2", "-P", "threads", app=APP)
    go = tmp_path / "go"
    try:
        held = chord([hold_join.s(1, str(go))], gather.s())()
        assert chord([add.s(1, 1), add.s(2, 2)], gather.s())().get(timeout=20) == [2, 4]
        assert not held.ready()
        go.touch()
        assert held.get(timeout=20) == [1]
    finally:
        app.resources.close(timeout=5.0)


def _chords(count: int) -> None:
    for _ in range(count):
        assert chord([add.s(1, 1), add.s(2, 2)], gather.s())().get(timeout=30) == [2, 4]


@pytest.mark.parametrize("pool", ["prefork", "threads", "solo"])
def test_looks_at_joins_share_a_connection(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, proxy: TcpProxy, pool: str
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", "-P", pool, app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for()})
    try:
        _chords(1)
        accepted = proxy.accepted
        _chords(5)
        assert proxy.accepted == accepted
    finally:
        app.resources.close(timeout=5.0)


@pytest.mark.parametrize("fault", ["cut", "closed by the admin"])
def test_a_connection_that_is_lost_between_looks_costs_no_chord(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, proxy: TcpProxy, fault: str
) -> None:
    app.conf.update(broker_url=vhost.url)
    worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": proxy.url_for()})
    try:
        _chords(1)
        if fault == "cut":
            proxy.cut()
        else:
            vhost.close_connections(at_least=5)
        _chords(2)
        eventually(lambda: _no_joins(vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)


@pytest.mark.parametrize("fault", ["cut", "half-open", "closed by the admin", "stop", "kill"])
def test_a_look_that_is_under_way_is_taken_again_whatever_ends_it(
    vhost: Vhost, ledger: Ledger, worker_process: WorkerProcesses, proxy: TcpProxy, tmp_path: Path, fault: str
) -> None:
    app.conf.update(broker_url=vhost.url)
    looking, go = tmp_path / "looking", tmp_path / "go"
    env = {"AMQP_TASKS_BROKER_URL": proxy.url_for(), "AMQP_TASKS_BROKER_HEARTBEAT": "2"}
    worker = worker_process("-c", "1", app=APP, env=env)
    try:
        _chords(1)  # so that the next look has its connection from the one before
        result = chord([add.s(1, 1), hold_look.s(5, str(looking), str(go))], gather.s("it"))()
        eventually(lambda: _is(looking.exists(), True), within=20)
        match fault:
            case "cut":
                proxy.cut()
            case "half-open":
                proxy.half_open()
            case "closed by the admin":
                vhost.close_connections(at_least=4)
            case "stop":
                worker.signal(signal.SIGTERM)
                worker.wait_output("warm stop")
                worker_process("-c", "1", app=APP)
            case _:
                worker.kill_all()
                worker_process("-c", "1", app=APP)
        go.touch()
        if fault == "half-open":
            proxy.resume()

        assert result.get(timeout=40) == [2, 5]
        eventually(lambda: _no_joins(vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)
    assert ledger.keys("gather").count("it") == 1


def test_looks_go_on_after_a_restart_of_the_broker(
    private_node: PrivateNode, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    app.conf.update(broker_url=private_node.url)
    worker_process("-c", "1", app=APP)
    try:
        _chords(2)
        private_node.restart()
        _chords(2)
        eventually(lambda: _no_joins(private_node.vhost), within=15)
    finally:
        app.resources.close(timeout=5.0)


@pytest.mark.parametrize("outage", ["restart", "kill"])
def test_a_chord_outlives_its_broker(
    private_node: PrivateNode, ledger: Ledger, worker_process: WorkerProcesses, outage: str
) -> None:
    # A broker that is killed may have forgotten that a join was deleted a moment before: the watch, here a quick one, ends it.
    app.conf.update(broker_url=private_node.url, task_chord_timeout=24)
    worker_process("-c", "2", app=APP)
    try:
        results = [chord([slow_step.s(0, n) for n in range(30)], gather.s(f"chord {c}"))() for c in range(4)]
        eventually(lambda: len(ledger.keys("gather")) >= 1, within=20)
        getattr(private_node, outage)()
        if outage == "kill":
            private_node.start()
        for result in results:
            assert result.get(timeout=40) == list(range(30))
        # The watch believes in such a queue's emptiness when an election would be over.
        eventually(lambda: _no_joins(private_node.vhost), within=50)
    finally:
        app.conf.update(task_chord_timeout=WEEK)
        app.resources.close(timeout=5.0)
    assert set(ledger.keys("gather")) == {f"chord {c}" for c in range(4)}


@pytest.mark.parametrize("needs", ["a join", "another queue"])
def test_a_worker_that_stops_while_its_broker_is_away_waits_no_longer_for_what_follows(
    private_node: PrivateNode, needs: str
) -> None:
    gate, begun = threading.Event(), threading.Event()
    with App("stopping", broker_url=private_node.url) as own:

        @own.task(name="first")
        def first() -> int:
            begun.set()
            assert gate.wait(40)
            return 1

        @own.task(name="double")
        def double(value: int) -> int:
            return 2 * value

        @own.task(name="total")
        def total(values: list[int]) -> int:
            return sum(values)

        with running(own, pool="solo", may_fail=True) as worker:
            # What follows needs a queue of its own, so its slot has to ask the broker.
            if needs == "a join":
                result = chain(first.s(), group(double.s(), double.s()), total.s())()
            else:
                result = chain(first.s(), double.si(2).set(queue="other"))()
            assert begun.wait(10)
            # On a busy machine a killed node had once forgotten the reply queue, which it had declared a second before.
            private_node.ctl("eval", "mnesia:sync_log().")
            private_node.kill()
            gate.set()
            worker.stop(timeout=0.5)
        private_node.start()
        with running(own, pool="solo", queues=[own.settings.task.default_queue, "other"]):
            assert result.get(timeout=30) == 4


def _is(found: object, expected: object) -> None:
    assert found == expected


def _no_joins(vhost: Vhost) -> None:
    assert [queue["name"] for queue in vhost.queues() if "join" in queue["name"]] == []
