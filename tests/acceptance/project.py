"""Projects as users have them: a directory with an app, commands run in it as subprocesses."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import PIPE
from typing import IO, Any

__all__ = ("Done", "Project")

COMMAND = (sys.executable, "-m", "amqp_tasks")


@dataclass(slots=True, kw_only=True)
class Done:
    """A finished command."""

    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """Its stdout as JSON."""
        return json.loads(self.out)


@dataclass(slots=True, kw_only=True)
class Project:
    """A directory with an app `proj`, and the environment that its commands get."""

    path: Path
    environment: dict[str, str]

    def write(self, name: str, text: str) -> None:
        """Write a file of the project."""
        (self.path / name).write_text(textwrap.dedent(text))

    def run(
        self, *arguments: str, timeout: float = 40.0, stdin: str | None = None, **environment: str
    ) -> Done:
        """Run a command to its end."""
        return self._run([*COMMAND, *arguments], environment, stdin, timeout)

    def run_writing_to(
        self, *arguments: str, stdout: int | IO[bytes] = PIPE, stderr: int | IO[bytes] = PIPE
    ) -> Done:
        """Run a command to its end whose output goes to a file."""
        return self._run([*COMMAND, *arguments], {}, None, 40.0, stdout=stdout, stderr=stderr)

    def run_at_terminal(self, answer: str, *arguments: str, timeout: float = 40.0) -> int:
        """Run a command whose stdin is a terminal; returns its exit code."""
        ours, theirs = pty.openpty()
        try:
            os.write(ours, answer.encode())
            return subprocess.run(
                [*COMMAND, *arguments],
                cwd=self.path,
                env=self.environment,
                stdin=theirs,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=timeout,
                check=False,
            ).returncode
        finally:
            os.close(theirs)
            os.close(ours)

    def run_python(self, *arguments: str, timeout: float = 40.0) -> Done:
        """Run a program of the project to its end."""
        return self._run([sys.executable, *arguments], {}, None, timeout)

    def _run(
        self,
        command: Sequence[str],
        environment: dict[str, str],
        stdin: str | None,
        timeout: float,
        *,
        stdout: int | IO[bytes] = PIPE,
        stderr: int | IO[bytes] = PIPE,
    ) -> Done:
        done = subprocess.run(
            command,
            cwd=self.path,
            env=self.environment | environment,
            stdout=stdout,
            stderr=stderr,
            text=True,
            input=stdin if stdin is not None else "",
            timeout=timeout,
            check=False,
        )
        return Done(code=done.returncode, out=done.stdout or "", err=done.stderr or "")
