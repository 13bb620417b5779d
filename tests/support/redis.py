"""A Redis server of the test's own: the installed one, else one in a container."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import redis

from support.containers import check_engine
from support.eventually import eventually
from support.nodes import NodeUnavailable, free_port

__all__ = ("RedisServer",)

IMAGE = "redis:7-alpine"
KEEPS_NOTHING = ("--save", "", "--appendonly", "no")


class _Running(Protocol):
    """A server that was started."""

    def end(self) -> None: ...


class RedisServer:
    """Runs on a free port while its `with` block does, and keeps nothing.

    Args:
        folder: for its log.

    Raises:
        NodeUnavailable: there is neither `redis-server` nor a Docker engine.
    """

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        program = shutil.which("redis-server")
        self._server: _Running = (
            _Process(program, self.port, folder) if program is not None else _Container(self.port)
        )
        self.client: Any = redis.Redis(port=self.port)
        eventually(self._answers, within=20)

    def _answers(self) -> bool:
        try:
            return bool(self.client.ping())
        except redis.ConnectionError:
            return False

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://127.0.0.1:{self.port}/0"

    def flush(self) -> None:
        """Forget all."""
        self.client.flushall()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._server.end()


class _Process:
    def __init__(self, program: str, port: int, folder: Path) -> None:
        command = [program, "--port", str(port), "--bind", "127.0.0.1", *KEEPS_NOTHING]
        with (folder / "redis.log").open("w") as log:
            self._process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)

    def end(self) -> None:
        self._process.kill()
        self._process.wait(10)


class _Container:
    def __init__(self, port: int) -> None:
        try:
            check_engine()
            from testcontainers.core.container import DockerContainer

            made = DockerContainer(IMAGE).with_command(
                ["redis-server", "--protected-mode", "no", *KEEPS_NOTHING]
            )
            ports: Any = made.ports
            ports.update({6379: ("127.0.0.1", port)})
            made.start()
        except Exception as exc:
            raise NodeUnavailable(
                f"these tests need a Redis, and there is neither redis-server (apt-get install redis-server) nor a container of "
                f"{IMAGE}: {type(exc).__name__}: {exc}"
            ) from exc
        self._owner = made  # which would remove the container when it is forgotten
        self._container: Any = made.get_wrapped_container()
        self._container.client.api.close()  # the leak check would count the sockets it keeps for later calls

    def end(self) -> None:
        self._container.remove(force=True, v=True)
        self._container.client.api.close()
