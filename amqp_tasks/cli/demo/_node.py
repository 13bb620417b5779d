"""A private RabbitMQ node from an installed rabbitmq-server: own name, ports and data, gone afterwards.

The machine's own RabbitMQ, running or not, is never touched: node name, data, log, configuration, cookie and the
port mapper (epmd) are all the private node's.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from amqp_tasks.clock import SYSTEM_CLOCK

__all__ = ("installed_server", "private_node")

_START_TIMEOUT = 60.0
_STOP_TIMEOUT = 10.0
_POLL = 0.1


def installed_server() -> Path | None:
    """The server script of an installed RabbitMQ; None when there is none.

    Debian's `/usr/sbin/rabbitmq-server` changes to the user rabbitmq, which could not use our files: the script
    that it wraps is preferred.
    """
    wrapped = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    if wrapped:
        return wrapped[-1]
    found = shutil.which("rabbitmq-server")
    return Path(found) if found else None


@contextmanager
def private_node(server: Path) -> Generator[str]:
    """The URL of a node that lives as long as the context.

    Raises:
        OSError: it did not start; the message has the end of its log.
    """
    with tempfile.TemporaryDirectory(prefix="amqp-tasks-demo-", ignore_cleanup_errors=True) as directory:
        home, port, epmd_port = Path(directory), _free_port(), _free_port()
        environment = _environment(home, port, epmd_port)
        with (home / "console.log").open("wb") as log:
            process = subprocess.Popen(  # noqa: S603 - the installed server, no user input
                [server],
                env=environment,
                cwd=home,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        try:
            _wait_for_port(process, port, home / "console.log")
            yield f"amqp://guest:guest@127.0.0.1:{port}//"
        finally:
            _end(process)
            _end_epmd(environment)


def _environment(home: Path, port: int, epmd_port: int) -> dict[str, str]:
    (home / "rabbitmq.conf").write_text(
        f"listeners.tcp.1 = 127.0.0.1:{port}\ndisk_free_limit.absolute = 50MB\n"
    )
    (home / "enabled_plugins").write_text("[].\n")
    (home / "rabbitmq-env.conf").touch()
    inherited = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return inherited | {
        "HOME": str(home),
        "ERL_EPMD_PORT": str(epmd_port),
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "RABBITMQ_NODENAME": f"amqp-tasks-demo-{port}@localhost",
        "RABBITMQ_CONF_ENV_FILE": str(home / "rabbitmq-env.conf"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq.conf"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_MNESIA_BASE": str(home / "data"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "generated"),
        "RABBITMQ_SCHEMA_DIR": str(home / "schema"),
        "RABBITMQ_PID_FILE": str(home / "node.pid"),
        "RABBITMQ_DIST_PORT": str(_free_port()),
        # The start script then becomes the node instead of waiting beside it, so that our signals reach it.
        "RUNNING_UNDER_SYSTEMD": "true",
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    deadline = SYSTEM_CLOCK.monotonic() + _START_TIMEOUT
    while SYSTEM_CLOCK.monotonic() < deadline:
        if process.poll() is not None:
            break
        with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=_POLL):
            return
        with suppress(subprocess.TimeoutExpired):
            process.wait(timeout=_POLL)
    tail = log.read_text(errors="replace")[-500:].strip()
    raise OSError(f"rabbitmq-server did not open its port; {tail or 'its log is empty'}")


def _end(process: subprocess.Popen[bytes]) -> None:
    # Its data is thrown away, so there is nothing for a clean stop to save.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=_STOP_TIMEOUT)


def _end_epmd(environment: dict[str, str]) -> None:
    epmd = shutil.which("epmd")
    if epmd is None:
        return
    with suppress(OSError, subprocess.TimeoutExpired):
        subprocess.run(  # noqa: S603 - found with shutil.which
            [epmd, "-kill"], env=environment, capture_output=True, timeout=_STOP_TIMEOUT, check=False
        )
