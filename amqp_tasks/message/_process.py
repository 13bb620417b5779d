"""Who this process is, in messages, and ids."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from hashlib import blake2b
from uuid import UUID

from amqp_tasks._forks import after_fork_in_child

__all__ = ("current_origin", "derived_ids", "new_sortable_id", "new_task_id")


class _Identity:
    """Written at first use and after a fork; read by any thread (a race only writes the same text twice)."""

    __slots__ = ("origin",)

    def __init__(self) -> None:
        self.origin: str | None = None

    def forget(self) -> None:
        """Ask again, as the pid has changed."""
        self.origin = None


_identity = _Identity()
after_fork_in_child(_identity.forget)


def current_origin() -> str:
    """`gen<pid>@<host>`, as Celery names a sender; the same object until the process forks."""
    if _identity.origin is None:
        import socket

        _identity.origin = f"gen{os.getpid()}@{socket.gethostname()}"
    return _identity.origin


_SEED = os.urandom(32)
_numbers = itertools.count()


def _random_digits() -> str:
    """128 random bits as hexadecimal digits: a keyed hash, as the key is of the system's entropy and known to nobody.

    Not a read of that entropy for each: it lets go of the interpreter's lock, and a sender of many would wait for it as
    often. What is hashed holds the pid and the time, so that no two sides of a fork make the same, also of one that Python
    does not see.
    """
    text = b"%d %d %d" % (os.getpid(), next(_numbers), time.time_ns())
    return blake2b(text, key=_SEED, digest_size=16).hexdigest()


_VARIANT = {ord(digit): "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_task_id() -> str:
    """A random UUID (version 4) as text."""
    text = _random_digits()
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{text[16].translate(_VARIANT)}{text[17:20]}-{text[20:]}"


def new_sortable_id() -> str:
    """A UUID of version 7 (RFC 9562) as text: milliseconds since 1970, then 74 random bits; ids sort by the time they were made."""
    milliseconds = time.time_ns() // 1_000_000
    text = f"{milliseconds & (1 << 48) - 1:012x}{new_task_id()[14:]}"
    return f"{text[:8]}-{text[8:12]}-7{text[13:]}"


def derived_ids(task_id: str, place: str) -> Iterator[str]:
    """Ids for what follows a task, without end: the same whenever they are made anew, so that a repeat is known as one.

    Args:
        task_id: of the task.
        place: what it is that follows; others for other things.
    """
    seed = f"{len(task_id)} {task_id} {place}".encode("utf-8", "surrogatepass")
    for number in itertools.count():
        digest = blake2b(seed + b" %d" % number, digest_size=16).digest()
        yield str(UUID(bytes=digest, version=5))
