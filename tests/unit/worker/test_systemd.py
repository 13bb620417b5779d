"""What systemd is told of a node: sd_notify(3)."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks.worker._systemd import ServiceManager, service_manager


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "notify")


@pytest.fixture
def systemd(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(address)
        listening.settimeout(5)
        yield listening


def report(state: str = "running", *, not_ready: tuple[str, ...] = (), not_live: tuple[str, ...] = ()) -> Any:
    return {"state": state, "not_ready": list(not_ready), "not_live": list(not_live)}


def received(systemd: socket.socket) -> list[str]:
    return systemd.recv(4096).decode().splitlines()


def test_it_is_told_once_that_the_node_is_ready_and_always_that_it_is_live(
    systemd: socket.socket, address: str
) -> None:
    manager = ServiceManager(address)

    manager.tell(report("starting", not_ready=("no\nbroker",)))
    assert received(systemd) == ["WATCHDOG=1", "STATUS=no broker"]
    manager.tell(report())
    assert received(systemd) == ["WATCHDOG=1", "READY=1", "STATUS=running"]
    manager.tell(report())
    assert received(systemd) == ["WATCHDOG=1"]
    manager.tell(report("stopping", not_ready=("it stops",)))
    assert received(systemd) == ["WATCHDOG=1", "STOPPING=1", "STATUS=it stops"]


def test_the_watchdog_bites_a_node_that_is_not_live(systemd: socket.socket, address: str) -> None:
    manager = ServiceManager(address)
    stuck = report(not_ready=("short",), not_live=("stuck",))

    manager.tell(stuck)
    manager.tell(stuck)
    manager.tell(report())

    assert received(systemd) == ["STATUS=stuck; short"]
    assert received(systemd) == ["WATCHDOG=1", "READY=1", "STATUS=running"]


def test_an_abstract_address_may_be_named() -> None:
    name = f"amqp-tasks-test-{id(object())}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(f"\0{name}")
        listening.settimeout(5)

        ServiceManager(f"@{name}").tell(report())

        assert "READY=1" in received(listening)


def test_one_that_does_not_listen_is_no_reason_to_fail(
    address: str, caplog: pytest.LogCaptureFixture
) -> None:
    manager = ServiceManager(address)

    manager.tell(report())
    manager.tell(report())

    assert [getattr(each, "action", "") for each in caplog.records] == ["notify"]


def test_it_is_told_where_the_environment_names_it() -> None:
    assert service_manager({}) is None
    assert service_manager({"NOTIFY_SOCKET": ""}) is None
    assert service_manager({"NOTIFY_SOCKET": "/run/notify"}) is not None
