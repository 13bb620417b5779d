"""The file of a node's process id."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._options import node_path
from amqp_tasks.worker._pidfile import holding_pidfile

HOLDER = """
import sys
from amqp_tasks.worker._pidfile import holding_pidfile
with holding_pidfile(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "worker.pid"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the file until its stdin is closed."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def hold(path: Path) -> str:
    with holding_pidfile(str(path)):
        return path.read_text()


def test_the_file_holds_the_process_id_and_is_gone_afterwards(path: Path) -> None:
    assert hold(path) == f"{os.getpid()}\n"
    assert not path.exists()


def test_a_living_holder_is_refused_with_its_pid_and_left_alone(
    path: Path, holder: subprocess.Popen[str]
) -> None:
    with pytest.raises(ConfigurationError, match=f"process {holder.pid} is running: stop it"):
        hold(path)

    assert path.read_text() == f"{holder.pid}\n"


def test_the_lock_refuses_even_where_the_pid_says_nothing(path: Path, holder: subprocess.Popen[str]) -> None:
    path.write_text("")

    with pytest.raises(ConfigurationError, match="is running"):
        hold(path)


def test_the_file_of_a_killed_holder_is_taken_over(path: Path, holder: subprocess.Popen[str]) -> None:
    holder.kill()
    holder.wait(10)

    assert path.read_text() == f"{holder.pid}\n"
    assert hold(path) == f"{os.getpid()}\n"


def test_the_file_of_a_later_holder_is_left_alone(path: Path) -> None:
    with holding_pidfile(str(path)):
        path.rename(path.with_suffix(".old"))
        path.write_text("4711\n")

    assert path.read_text() == "4711\n"


def test_a_living_process_that_holds_no_lock_is_refused_too(
    tmp_path: Path, holder: subprocess.Popen[str]
) -> None:
    other = tmp_path / "other.pid"
    other.write_text(f"{holder.pid}\n")

    with pytest.raises(ConfigurationError, match="delete the file if that is another program"):
        hold(other)


@pytest.mark.parametrize("text", ["", f"{os.getpid()}\n", "9" * 31], ids=["nobody", "itself", "no pid"])
def test_a_file_that_names_nobody_else_is_taken_over(path: Path, text: str) -> None:
    path.write_text(text)

    assert hold(path) == f"{os.getpid()}\n"


@pytest.mark.parametrize("text", ["notes", "0", "-1", "12 34"])
def test_a_file_of_something_else_is_not_overwritten(path: Path, text: str) -> None:
    path.write_text(text)

    with pytest.raises(ConfigurationError, match="name another file"):
        hold(path)
    assert path.read_text() == text


def test_a_path_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"cannot write pidfile '.*missing.*': No such file"):
        hold(tmp_path / "missing" / "worker.pid")


def test_a_path_may_name_the_node() -> None:
    assert node_path("/run/%n-%d.%%.%h", "mail@box.example") == "/run/mail-box.example.%.mail@box.example"
