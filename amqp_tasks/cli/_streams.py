"""Standard streams as they are when nobody thought of them: closed, full, or of an encoding that knows few characters."""

from __future__ import annotations

import os
import sys
from typing import TextIO

__all__ = ("give_up", "make_streams_usable")


def make_streams_usable() -> None:
    """Stand in for streams that were closed at the start, and have stdout escape what its encoding does not know.

    A socket would else get the number of a closed one, and whatever prints would write into it.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        if getattr(sys, name) is None:
            _open_nothing(number, name)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def give_up(stream: TextIO) -> None:
    """Have a stream lead nowhere: what could not be written is else tried again when the interpreter ends, which complains."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, stream.fileno())
    os.close(nowhere)


def _open_nothing(number: int, name: str) -> None:
    # The least free number: just this one, if nothing took it meanwhile.
    descriptor = os.open(os.devnull, os.O_RDWR)
    os.set_inheritable(descriptor, descriptor == number)
    stream = os.fdopen(descriptor, "w" if number else "r", encoding="utf-8", errors="backslashreplace")
    setattr(sys, name, stream)
    setattr(sys, f"__{name}__", stream)
