"""Who this process is, in messages, and ids."""

from __future__ import annotations

import os
from binascii import hexlify

__all__ = ("current_origin", "new_task_id")


class _Identity:
    """Written at first use and after a fork; read by any thread (a race only writes the same text twice)."""

    __slots__ = ("origin",)

    def __init__(self) -> None:
        self.origin: str | None = None

    def forget(self) -> None:
        """Ask again, as the pid has changed."""
        self.origin = None


_identity = _Identity()
os.register_at_fork(after_in_child=_identity.forget)


def current_origin() -> str:
    """`gen<pid>@<host>`, as Celery names a sender; the same object until the process forks."""
    if _identity.origin is None:
        import socket

        _identity.origin = f"gen{os.getpid()}@{socket.gethostname()}"
    return _identity.origin


_VARIANT = {ord(digit): "89ab"[int(digit, 16) & 3] for digit in "0123456789abcdef"}


def new_task_id() -> str:
    """A random UUID (version 4) as text.

    One read of the system's entropy for each: a pool read in advance would hand the same ids to both sides of a fork
    that Python does not see.
    """
    text = hexlify(os.urandom(16)).decode("ascii")
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-{text[16].translate(_VARIANT)}{text[17:20]}-{text[20:]}"
