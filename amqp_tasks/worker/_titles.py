"""What process lists show of a node, where the extra `titles` (setproctitle) is installed."""

from __future__ import annotations

import os

__all__ = ("set_title",)

_KEEP_ENVIRONMENT = "SPT_NOENV"


def set_title(node: str, part: str = "") -> None:
    """Show a node's name, and which part of it this is, in place of the command line.

    Nothing else is shown: a command line may hold a broker's URL, and everybody on the machine can read it.
    """
    try:
        from setproctitle import setproctitle
    except ImportError:
        return
    # It would write over the environment that /proc shows, which people look into.
    given = os.environ.get(_KEEP_ENVIRONMENT)
    os.environ[_KEEP_ENVIRONMENT] = "1"
    try:
        setproctitle(f"amqp-tasks: {node}" + (f": {part}" if part else ""))
    finally:
        if given is None:
            del os.environ[_KEEP_ENVIRONMENT]
        else:
            os.environ[_KEEP_ENVIRONMENT] = given
