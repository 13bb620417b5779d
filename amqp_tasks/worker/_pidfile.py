"""The file that holds a node's process id, and keeps a second node of the same file from starting."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from amqp_tasks.errors import ConfigurationError

__all__ = ("holding_pidfile", "lives")

_MAX_SIZE = 32


@contextmanager
def holding_pidfile(path: str) -> Generator[None]:
    """Have our process id in the file while the block runs; then it is deleted.

    A file whose process has gone is taken over. The lock decides between nodes that start at the same time; it belongs
    to this process alone, so nothing that is forked from it keeps the file alive.

    Raises:
        ConfigurationError: the process in it lives, it holds something else, or it cannot be written.
    """
    try:
        fd = _open_locked(path)
    except OSError as exc:
        raise ConfigurationError(f"cannot write pidfile {path!r}: {exc.strerror}") from exc
    try:
        _refuse_living(path, fd)
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            # The name first, then the lock. A file that cannot be deleted is taken over by the next node.
            with suppress(OSError):
                # Somebody may have deleted ours meanwhile, and another node have the name.
                if Path(path).stat().st_ino == os.fstat(fd).st_ino:
                    Path(path).unlink()
    finally:
        os.close(fd)


def _open_locked(path: str) -> int:
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.fstat(fd).st_nlink:
                return fd
            # Its owner deleted it between the two calls: another file has the name, or none.
            os.close(fd)
        except BlockingIOError as exc:
            pid = _read(fd)
            os.close(fd)
            raise _refusal(path, pid or "?") from exc
        except BaseException:
            os.close(fd)
            raise


def _refuse_living(path: str, fd: int) -> None:
    text = _read(fd)
    if not text:
        return
    if not text.isdecimal() or not int(text):
        raise ConfigurationError(
            f"pidfile {path!r} holds {text!r:.40}, which is no process id: name another file"
        )
    if int(text) != os.getpid() and lives(int(text)):
        raise _refusal(path, text)


def _read(fd: int) -> str:
    return os.pread(fd, _MAX_SIZE, 0).decode("utf-8", "replace").strip()


def lives(pid: int) -> bool:
    """Whether there is a process with this id."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


def _refusal(path: str, pid: str) -> ConfigurationError:
    return ConfigurationError(
        f"pidfile {path!r}: process {pid} is running: stop it, or delete the file if that is another program"
    )
