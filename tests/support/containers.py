"""A RabbitMQ node in a container, which the tests start, break and end themselves."""

from __future__ import annotations

import os
import signal
import socket
import uuid
from typing import Any

from support.eventually import wait_until
from support.nodes import STOP_TIMEOUT, Node, NodeUnavailable, Seat

__all__ = ("IMAGE", "ContainerNode", "check_engine")

IMAGE = "rabbitmq:4-management"
FREEZE_TIMEOUT = 10.0


def check_engine() -> None:
    """Ask for the Docker engine before its client does, which leaves an open socket behind when nobody answers.

    Raises:
        NodeUnavailable: nobody answers at the engine's local socket.
    """
    host = os.environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"
    if host.startswith("unix://"):
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(host.removeprefix("unix://"))
            except OSError as exc:
                raise NodeUnavailable(f"no Docker engine at {host}: {exc}") from exc


class ContainerNode(Node):
    """A node in a container of `IMAGE`, on fixed ports of the loopback address."""

    kind = "container"

    def __init__(self, *, seat: Seat | None = None) -> None:
        super().__init__()
        self._container: Any = None
        self._seat = seat
        self.name = seat.name if seat else f"rabbit@t{uuid.uuid4().hex[:8]}"

    def _launch(self) -> None:
        if self._container is None:
            self._container = self._create()
        else:
            self._container.start()
            self._quiet()

    def _create(self) -> Any:
        check_engine()
        try:
            from testcontainers.core.container import DockerContainer

            made = DockerContainer(IMAGE, env=self._environment())
            made.with_kwargs(**self._place())
            # Past the type of testcontainers, which has no way to bind to the loopback address alone.
            ports: Any = made.ports
            ports.update({5672: ("127.0.0.1", self.port), 15672: ("127.0.0.1", self.management_port)})
            made.start()
        except Exception as exc:
            raise NodeUnavailable(f"no container of {IMAGE}: {type(exc).__name__}: {exc}") from exc
        self._owner = made
        container = made.get_wrapped_container()
        container.client.api.close()
        return container

    def _environment(self) -> dict[str, str]:
        if self._seat is None:
            return {}
        return {
            "RABBITMQ_ERLANG_COOKIE": self._seat.cookie,
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": self._seat.erl_arguments,
        }

    def _place(self) -> dict[str, str]:
        host = {"hostname": self.name.rpartition("@")[2]}
        return host | ({"network": str(self._seat.meeting_point)} if self._seat else {})

    def _quiet(self) -> None:
        # The Docker client keeps its sockets for later calls; the leak check would count them.
        self._container.client.api.close()

    def is_running(self) -> bool:
        if self._container is None:
            return False
        self._container.reload()
        self._quiet()
        return bool(self._container.status in {"running", "paused"})

    def _signal(self, number: signal.Signals) -> None:
        # The cgroup freezer rather than SIGSTOP: the engine's own processes in the container freeze as well.
        match number:
            case signal.SIGSTOP:
                self._freeze()
            case signal.SIGCONT:
                self._container.unpause()
            case _:
                if self._is_paused:
                    self._container.unpause()
                self._container.kill(number.value)
        self._quiet()

    def _freeze(self) -> None:
        """The freezer gives up on a machine where it does not meet all processes at rest in time: ask again."""

        def is_frozen() -> bool:
            try:
                self._container.pause()
            except Exception as exc:
                if "unable to freeze" not in str(exc):
                    raise
                return False
            return True

        assert wait_until(is_frozen, FREEZE_TIMEOUT), "the container cannot be frozen"

    def _end(self) -> None:
        # Not by a signal: in some images the first process is a shell that does not pass it on, and `docker stop`
        # would wait for its limit and then kill.
        # Nor by `shutdown`: it waits inside for the end of what it runs in.
        self._run("rabbitmqctl", ("stop",))
        self._container.stop(timeout=int(STOP_TIMEOUT))
        self._quiet()

    def _run(self, tool: str, arguments: tuple[str, ...]) -> tuple[int, str]:
        status, output = self._container.exec_run([tool, *arguments])
        self._quiet()
        return status, output.decode(errors="replace")

    def log(self) -> str:
        if self._container is None:
            return ""
        text: str = self._container.logs().decode(errors="replace")
        self._quiet()
        return text

    def remove(self) -> None:
        if self._container is None:
            return
        self._container.remove(force=True, v=True)
        self._quiet()
        self._container = None
