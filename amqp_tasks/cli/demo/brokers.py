"""Where the demo's broker comes from: given, local, in a container, a private node, or embedded."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from amqp_tasks.app import App
from amqp_tasks.cli.demo._node import installed_server, private_node
from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import BrokerConnectionError

__all__ = ("DemoBroker", "find_broker")

_IMAGE = "rabbitmq:4-management"
_LOCAL = "amqp://guest:guest@localhost:5672//"
_GIVEN_TIMEOUT = 5.0
_LOCAL_TIMEOUT = 2.0
_START_TIMEOUT = 90.0
_PULL_TIMEOUT = 240.0

Note = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoBroker:
    """The broker that the demo uses; `description` has no secrets."""

    url: str
    description: str
    is_embedded: bool = False


@contextmanager
def find_broker(given: str | None, note: Note) -> Generator[DemoBroker]:
    """The first broker that works; what had to be started for it ends with the context.

    Args:
        given: the user's URL; it must work, nothing else is tried.
        note: told about what takes time, and why a source was passed over.

    Raises:
        BrokerConnectionError: `given` does not work.
    """
    with ExitStack() as stack:
        if given is not None:
            yield _given(given)
            return
        for source in (_local, _container, _node):
            broker = source(stack, note)
            if broker is not None:
                yield broker
                return
        yield _embedded()


def _given(url: str) -> DemoBroker:
    if url.startswith("memory:"):
        return _embedded()
    return DemoBroker(url=url, description=f"{_answer(url, _GIVEN_TIMEOUT)} (as given)")


def _local(stack: ExitStack, note: Note) -> DemoBroker | None:
    try:
        return DemoBroker(
            url=_LOCAL, description=f"{_answer(_LOCAL, _LOCAL_TIMEOUT)} (found on this machine)"
        )
    except BrokerConnectionError as exc:
        if exc.is_final:
            note(f"the RabbitMQ on localhost:5672 is not for guest ({exc}); give yours with --broker")
        return None


def _container(stack: ExitStack, note: Note) -> DemoBroker | None:
    docker = shutil.which("docker")
    if docker is None or _succeeds([docker, "version"], timeout=5.0) is None:
        return None
    note(f"starting a container of {_IMAGE} (removed at the end)")
    command = [
        docker,
        "run",
        "--detach",
        "--rm",
        "--publish",
        "127.0.0.1::5672",
        "--label",
        "amqp-tasks.demo",
        _IMAGE,
    ]
    container_id = _succeeds(command, timeout=_PULL_TIMEOUT)
    if container_id is None:
        note("the container did not start")
        return None
    stack.callback(_succeeds, [docker, "rm", "--force", container_id], timeout=30.0)
    address = _succeeds([docker, "port", container_id, "5672/tcp"], timeout=10.0) or ""
    url = f"amqp://guest:guest@{address.splitlines()[0] if address else 'localhost:5672'}//"
    return _started(url, f"in a container of {_IMAGE}", note)


def _node(stack: ExitStack, note: Note) -> DemoBroker | None:
    server = installed_server()
    if server is None:
        return None
    note("starting a private node of the installed rabbitmq-server (removed at the end)")
    try:
        url = stack.enter_context(private_node(server))
    except OSError as exc:
        note(f"the node did not start: {exc}")
        return None
    return _started(url, "a private node of the installed rabbitmq-server", note)


def _embedded() -> DemoBroker:
    return DemoBroker(
        url="memory://",
        description="the embedded memory:// broker, inside this process: good for a look, not for work.\n"
        f"  For RabbitMQ: docker run --rm -p 5672:5672 {_IMAGE}   or   apt-get install rabbitmq-server",
        is_embedded=True,
    )


def _started(url: str, where: str, note: Note) -> DemoBroker | None:
    deadline = SYSTEM_CLOCK.monotonic() + _START_TIMEOUT
    try:
        return DemoBroker(
            url=url, description=f"{_answer(url, deadline - SYSTEM_CLOCK.monotonic())} ({where})"
        )
    except BrokerConnectionError as exc:
        note(f"it did not answer in time: {exc}")
        return None


def _answer(url: str, timeout: float) -> str:
    """Product, version and masked URL of the broker at `url`."""
    app = App("demo-probe", broker=url)
    try:
        server = app.transport.open(timeout=timeout)
    finally:
        app.close()
    return f"{server.product} {'.'.join(map(str, server.version))} at {server.url}"


def _succeeds(command: list[str], *, timeout: float) -> str | None:
    """The output of `command`, or None when it fails or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 - a fixed command line, found with shutil.which
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            check=False,
            env=os.environ,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
