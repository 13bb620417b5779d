"""Workers as the processes that users run."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import psutil

from support.eventually import PATIENCE, wait_until

__all__ = ("WorkerProcess", "WorkerProcesses", "running")

MARK = "AMQP_TASKS_TEST_WORKER"
READY = r"\bready\b"
TESTS = Path(__file__).resolve().parent.parent


class WorkerProcess:
    """`python -m amqp_tasks -A APP worker …` in a session of its own.

    1. Started by `WorkerProcesses`, which waits for its ready line.
    2. The test signals it, kills it, or stops it and looks at its status.
    3. The fixture kills what is left and fails when a descendant outlived its parent.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, stdin: int = subprocess.DEVNULL
    ) -> None:
        self.command = tuple(command)
        self.mark = uuid.uuid4().hex
        self._lines: list[str] = []
        self._changed = threading.Condition()
        self.process = subprocess.Popen(
            self.command,
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            cwd=cwd,
            # Celery gives its processes titles where it can, which must not be written over the mark.
            env={**env, MARK: self.mark, "SPT_NOENV": "1"},
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self._reader = threading.Thread(
            target=self._read, args=(self.process.stdout,), name="worker-output", daemon=True
        )
        self._reader.start()

    @property
    def pid(self) -> int:
        """The supervisor's process id."""
        return self.process.pid

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            with self._changed:
                self._lines.append(line)
                self._changed.notify_all()
        with self._changed:
            self._changed.notify_all()

    @property
    def output(self) -> str:
        """What it has written to standard output and error so far."""
        with self._changed:
            return "".join(self._lines)

    def wait_output(self, pattern: str, *, count: int = 1, within: float = 15.0) -> str:
        """Wait for `count` lines that match the regular expression; returns the first.

        Args:
            pattern: the regular expression.
            count: of the lines.
            within: seconds, on a machine that has nothing else to do.

        Raises:
            AssertionError: none came in time, or the process ended without one.
        """
        sought = re.compile(pattern)
        found: list[str] = []

        def seen() -> bool:
            found[:] = [line for line in self._lines if sought.search(line)]
            return len(found) >= count or not self._reader.is_alive()

        with self._changed:
            self._changed.wait_for(seen, PATIENCE * within)
            seen()
        assert len(found) >= count, (
            f"{len(found)} of {count} lines like {pattern!r} from {' '.join(self.command)}\n{self.output}"
        )
        return found[0].rstrip("\n")

    def children(self) -> list[int]:
        """The process ids of its living descendants."""
        return [each.pid for each in self._family() if each.pid != self.pid]

    def _family(self) -> list[psutil.Process]:
        """All living processes that carry its mark, orphans and other sessions included."""
        found: list[psutil.Process] = []
        for each in psutil.process_iter():
            try:
                if each.status() != psutil.STATUS_ZOMBIE and each.environ().get(MARK) == self.mark:
                    found.append(each)
            except (psutil.Error, OSError):
                continue
        return found

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the supervisor alone."""
        self.process.send_signal(number)

    def wait(self, within: float = 15.0 * PATIENCE) -> int:
        """Wait for its end; returns its exit status.

        Args:
            within: seconds on this machine: for ends that have a deadline of their own.

        Raises:
            AssertionError: it did not end in time.
        """
        try:
            status = self.process.wait(within)
        except subprocess.TimeoutExpired as exc:
            raise AssertionError(f"the worker did not end within {within} s\n{self.output}") from exc
        self._reader.join(5)
        return status

    def stop(self, within: float = 15.0 * PATIENCE) -> int:
        """Stop it warm (TERM) and wait; returns its exit status. `within` as in `wait`."""
        if self.process.poll() is None:
            self.signal(signal.SIGTERM)
        return self.wait(within)

    def kill(self) -> None:
        """SIGKILL to the supervisor alone: its children must notice by themselves."""
        self.process.kill()
        self.process.wait(10)

    def kill_all(self) -> None:
        """SIGKILL to it and all descendants, as a machine that dies."""
        for each in self._family():
            with suppress(psutil.NoSuchProcess):  # ended since it was found
                each.kill()
        self.process.wait(10)

    def survivors(self, *, within: float = 5.0) -> list[str]:
        """Descendants that live on although the supervisor ended; waited for a short while, as by `eventually`."""
        wait_until(lambda: not self._family(), PATIENCE * within)
        return [f"{each.pid}: {' '.join(each.cmdline())}" for each in self._family()]

    def close(self) -> list[str]:
        """End everything; returns the survivors of a worker that had already ended."""
        survivors = self.survivors() if self.process.poll() is not None else []
        self.kill_all()
        self._reader.join(5)
        for each in (self.process.stdin, self.process.stdout):
            if each is not None:
                each.close()
        return survivors


class WorkerProcesses:
    """What the `worker_process` fixture hands out: call it to start a worker."""

    def __init__(self, cwd: Path, env: Mapping[str, str]) -> None:
        self._cwd, self._env = cwd, dict(env)
        self._started: list[WorkerProcess] = []

    def __call__(
        self,
        *arguments: str,
        app: str | None = "support.worker_app:app",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: str | None = READY,
        within: float = 20.0,
    ) -> WorkerProcess:
        """Start `amqp-tasks -A app worker ARGUMENTS` and wait for its ready line.

        Args:
            arguments: after `worker`.
            app: what `-A` gets; None leaves it out.
            env: on top of this process's environment and the fixture's.
            cwd: its folder; default the test's temporary one.
            ready: the regular expression to wait for; None does not wait (it is expected to fail).
            within: seconds for the ready line.
        """
        chosen = ("-A", app) if app is not None else ()
        command = [sys.executable, "-m", "amqp_tasks", *chosen, "worker", *arguments]
        return self.run(command, env=env, cwd=cwd, ready=ready, within=within)

    def run(
        self,
        command: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: str | None = READY,
        within: float = 20.0,
        stdin: int = subprocess.DEVNULL,
    ) -> WorkerProcess:
        """Start any system's worker, or another process, by its command; the rest as in `__call__`."""
        started = WorkerProcess(
            command, env={**os.environ, **self._env, **(env or {})}, cwd=cwd or self._cwd, stdin=stdin
        )
        self._started.append(started)
        if ready is not None:
            started.wait_output(ready, within=within)
        return started

    def outputs(self) -> list[str]:
        """What each process has written so far, below its id and command."""
        return [f"{each.pid}: {' '.join(each.command)}\n{each.output}" for each in self._started]

    def keep_outputs(self, folder: Path) -> None:
        """Write what each process has written so far to a file of its own."""
        for number, output in enumerate(self.outputs()):
            (folder / f"output-{number}").write_text(output)

    def close(self) -> None:
        """End all workers.

        Raises:
            AssertionError: a process outlived a worker that had ended.
        """
        survivors = [said for each in self._started for said in each.close()]
        assert not survivors, "processes outlived their worker:\n" + "\n".join(survivors)


@contextmanager
def running(
    command: list[str], environment: dict[str, str], cwd: Path, ready: str
) -> Iterator[WorkerProcess]:
    """A worker that is ready."""
    worker = WorkerProcess(command, env=os.environ | environment, cwd=cwd)
    try:
        worker.wait_output(ready, within=30)
        yield worker
    finally:
        worker.close()
