"""RabbitMQ nodes that the tests start, break and end themselves; here those of the installed rabbitmq-server."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar
from weakref import WeakSet

from support.eventually import wait_until
from support.leaks import expect_process, forget_process
from support.management import Management

__all__ = ("LocalNode", "Node", "NodeUnavailable", "Seat", "free_port")

PR_SET_PDEATHSIG = 1
LIST_OF_QUEUES_DELAY = 1.0
START_TIMEOUT = 90.0
STOP_TIMEOUT = 60.0
_INSTALLED = Path("/usr/lib/rabbitmq/lib")


class NodeUnavailable(Exception):
    """This machine cannot run a node of that kind; says why."""


# Below the ports that systems give to outgoing connections (from 32,768 on Linux, 49,152 elsewhere): while a node is down, its
# ports must not become the near end of somebody's connection.
_PORTS = range(21_000, 32_000)


def free_port() -> int:
    """A TCP port of the loopback address that nobody listens on now, and that no connection is given."""
    for port in random.sample(_PORTS, 200):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise NodeUnavailable("no TCP port is free")


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def speaks_amqp(port: int) -> bool:
    """Whether an AMQP 0-9-1 broker answers with connection.start."""
    try:
        with socket.create_connection(("127.0.0.1", port), 1.0) as probe:
            probe.settimeout(2.0)
            probe.sendall(b"AMQP\x00\x00\x09\x01")
            return probe.recv(1) == b"\x01"
    except OSError:
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A node's place in a cluster that forms itself when its members start together.

    Attributes:
        name: the Erlang node's name, `a@b`.
        members: the names of all members.
        cookie: which they share.
        meeting_point: where they find each other: the port of their epmd, or the name of their Docker network.
    """

    name: str
    members: tuple[str, ...]
    cookie: str
    meeting_point: int | str

    @property
    def erl_arguments(self) -> str:
        """What makes RabbitMQ join the others at its first start, and wait a second for one whose machine is gone, not seven."""
        return f"-kernel net_setuptime 1 -rabbit cluster_nodes {{[{','.join(self.members)}],disc}}"


class Node(ABC):
    """One RabbitMQ node on a fixed port, with the management plugin, whose data outlives a stop or a kill.

    1. `start` returns when it speaks AMQP and its management API answers.
    2. A test breaks it as it likes: `stop`, `kill`, `pause`, `resume`, `restart`, `ctl`.
    3. `heal` brings it back; the fixture calls it before the next test gets the node.
    4. `remove` ends it and deletes its data.
    """

    made: ClassVar[WeakSet[Node]] = WeakSet()
    """Those of this run, for the report of a failed test."""
    kind: str
    name: str
    """Of the Erlang node, as the management API tells it of queues."""

    def __init__(self) -> None:
        self.port = free_port()
        self.management_port = free_port()
        self.url = f"amqp://guest:guest@127.0.0.1:{self.port}/%2F"
        self.management = Management(f"http://guest:guest@127.0.0.1:{self.management_port}")
        self._is_paused = False
        self._up_since = 0.0
        self._touched: set[str] = set()
        self.made.add(self)

    @property
    def up_for(self) -> float:
        """Seconds since it last came up."""
        return time.monotonic() - self._up_since

    @abstractmethod
    def is_running(self) -> bool:
        """Whether its process lives, paused or not."""

    @abstractmethod
    def _launch(self) -> None: ...

    @abstractmethod
    def _signal(self, number: signal.Signals) -> None: ...

    @abstractmethod
    def _end(self) -> None:
        """Stop cleanly, within `STOP_TIMEOUT`."""

    @abstractmethod
    def _run(self, tool: str, arguments: tuple[str, ...]) -> tuple[int, str]: ...

    @abstractmethod
    def log(self) -> str:
        """All that it has logged; nothing once it is removed."""

    @abstractmethod
    def remove(self) -> None:
        """End it and delete its data; idempotent."""

    def start(self) -> None:
        """Start it, on its old data if it ran before; a running one is left alone."""
        self.begin()
        self.wait_ready()

    def begin(self) -> None:
        """The first half of `start`, which does not wait: members of a cluster start together."""
        if not self.is_running():
            self._launch()
            self._up_since = time.monotonic()

    def wait_ready(self) -> None:
        """Wait until it serves AMQP and HTTP.

        Raises:
            NodeUnavailable: it did not in time, or ended.
        """
        wait_until(lambda: self._answers() or not self.is_running(), START_TIMEOUT)
        if not self._answers():
            raise NodeUnavailable(f"the {self.kind} node did not come up:\n{self.log()[-3000:]}")

    def _answers(self) -> bool:
        if not speaks_amqp(self.port):
            return False
        try:
            self.management.version()
        except Exception:
            return False
        return True

    def stop(self) -> None:
        """Stop it cleanly: clients get connection.close."""
        self.resume()
        if self.is_running():
            self._end()

    def kill(self) -> None:
        """SIGKILL: as a power cut, but for what the kernel still writes.

        Waits a second before: the node writes its list of quorum queues half a second late, and a quorum queue that
        was declared just before a kill does not come up again (seen with 3.10.8 and 4.0.5).
        """
        if self.is_running():
            wait_until(lambda: False, LIST_OF_QUEUES_DELAY)
            self._signal(signal.SIGKILL)
            assert wait_until(lambda: not self.is_running(), 30), "a killed node still runs"
        self._is_paused = False

    def pause(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)
        self._is_paused = True

    def resume(self) -> None:
        """Thaw it; idempotent."""
        if self._is_paused:
            self._signal(signal.SIGCONT)
            self._is_paused = False

    def restart(self) -> None:
        """Stop cleanly and start."""
        self.stop()
        self.start()

    def ctl(self, *arguments: str, tool: str = "rabbitmqctl") -> str:
        """Run rabbitmqctl (or another of RabbitMQ's tools) against this node and return what it printed.

        Raises:
            AssertionError: it failed.
        """
        if arguments and arguments[0].startswith("set_"):
            self._touched.add(arguments[0])
        status, text = self._run(tool, arguments)
        assert status == 0, f"{tool} {' '.join(arguments)}: status {status}\n{text}"
        return text

    def raise_memory_alarm(self) -> None:
        """From now on publishing connections are blocked."""
        self.ctl("set_vm_memory_high_watermark", "0")

    def clear_memory_alarm(self) -> None:
        """The end of `raise_memory_alarm`."""
        self.ctl("set_vm_memory_high_watermark", "0.6")
        self._touched.discard("set_vm_memory_high_watermark")

    def raise_disk_alarm(self) -> None:
        """From now on publishing connections are blocked."""
        self.ctl("set_disk_free_limit", str(2**60))

    def clear_disk_alarm(self) -> None:
        """The end of `raise_disk_alarm`."""
        self.ctl("set_disk_free_limit", "50MB")
        self._touched.discard("set_disk_free_limit")

    def heal(self) -> None:
        """Bring it back to running and without alarms, whatever a test did."""
        self.resume()
        self.start()
        if "set_vm_memory_high_watermark" in self._touched:
            self.clear_memory_alarm()
        if "set_disk_free_limit" in self._touched:
            self.clear_disk_alarm()
        self._touched.clear()


def find_server() -> str:
    """The installed rabbitmq-server's script.

    Debian's /usr/sbin/rabbitmq-server changes the user and the folder; the script inside the installation does not.

    Raises:
        NodeUnavailable: none is installed.
    """
    given = os.environ.get("AMQP_TASKS_TEST_RABBITMQ_SERVER")
    found = (
        given
        or max(map(str, _INSTALLED.glob("rabbitmq_server-*/sbin/rabbitmq-server")), default=None)
        or shutil.which("rabbitmq-server")
    )
    if not found:
        raise NodeUnavailable("no rabbitmq-server is installed")
    if not shutil.which("epmd"):
        raise NodeUnavailable("a rabbitmq-server is installed, but Erlang's epmd is not on the PATH")
    return found


def _die_with_parent() -> None:
    """In the child: be killed when the tests are, e.g. by their time limit; only Linux can do that."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


class LocalNode(Node):
    """A node of the installed rabbitmq-server: own name, ports, data, cookie and epmd; loopback only."""

    kind = "installed"

    def __init__(self, conf: Mapping[str, str] | None = None, *, seat: Seat | None = None) -> None:
        super().__init__()
        self.server = find_server()
        self.home = Path(tempfile.mkdtemp(prefix="amqp-tasks-node-"))
        self._seat = seat
        self.name = seat.name if seat else f"t{uuid.uuid4().hex[:8]}@localhost"
        self._epmd_port = int(seat.meeting_point) if seat else free_port()
        self._epmd: subprocess.Popen[bytes] | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._write_files(conf or {})

    def _write_files(self, conf: Mapping[str, str]) -> None:
        lines = {
            "listeners.tcp.1": f"127.0.0.1:{self.port}",
            "management.tcp.ip": "127.0.0.1",
            "management.tcp.port": str(self.management_port),
            "disk_free_limit.absolute": "50MB",
            **conf,
        }
        (self.home / "rabbitmq.conf").write_text(
            "".join(f"{key} = {value}\n" for key, value in lines.items())
        )
        (self.home / "enabled_plugins").write_text("[rabbitmq_management].\n")
        (self.home / "rabbitmq-env.conf").touch()
        (self.home / "advanced.config").write_text("[].\n")
        cookie = self.home / ".erlang.cookie"
        cookie.write_text(self._seat.cookie if self._seat else uuid.uuid4().hex)
        cookie.chmod(0o400)
        for name in ("data", "log", "conf.d", "schema"):
            (self.home / name).mkdir()

    def _environment(self) -> dict[str, str]:
        home = str(self.home)
        joining = f" {self._seat.erl_arguments}" if self._seat else ""
        return {
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": home,
            "LC_ALL": "C.UTF-8",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": self.name,
            "RABBITMQ_CONF_ENV_FILE": f"{home}/rabbitmq-env.conf",
            "RABBITMQ_CONFIG_FILE": f"{home}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{home}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/enabled_plugins",
            "RABBITMQ_MNESIA_BASE": f"{home}/data",
            "RABBITMQ_LOG_BASE": f"{home}/log",
            "RABBITMQ_GENERATED_CONFIG_DIR": f"{home}/conf.d",
            "RABBITMQ_SCHEMA_DIR": f"{home}/schema",
            "RABBITMQ_PID_FILE": f"{home}/node.pid",
            "RABBITMQ_DIST_PORT": str(free_port()),
            # The script then becomes the node by exec, so that our child is the node itself.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": f"-kernel inet_dist_use_interface {{127,0,0,1}}{joining}",
        }

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def _spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        with (self.home / "log" / "console.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                env=self._environment(),
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509 - it only calls prctl, which takes no lock
            )
        expect_process(process.pid)
        return process

    def _launch(self) -> None:
        if self._epmd is None and not listens(self._epmd_port):
            self._epmd = self._spawn(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        self._process = self._spawn([self.server])

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None, "not started"
        self._process.send_signal(number)

    def _end(self) -> None:
        assert self._process is not None, "not started"
        self._process.terminate()
        self._process.wait(STOP_TIMEOUT)

    def _run(self, tool: str, arguments: tuple[str, ...]) -> tuple[int, str]:
        command = [str(Path(self.server).with_name(tool)), "-n", self.name, *arguments]
        done = subprocess.run(
            command,
            env=self._environment(),
            cwd=self.home,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    def log(self) -> str:
        # What comes before the files are open, or is no log at all, is on the console.
        files = (self.home / "log" / name for name in ("console.log", f"{self.name}.log"))
        return "".join(file.read_text(errors="replace") for file in files if file.exists())

    def remove(self) -> None:
        for process in (self._process, self._epmd):
            if process is not None:
                # Its own session: helpers of the node (erl_child_setup) go with it.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait(10)
                forget_process(process.pid)
        self._process = self._epmd = None
        shutil.rmtree(self.home, ignore_errors=True)
