"""What must be done anew in a forked child."""

from __future__ import annotations

import os
from collections.abc import Callable

__all__ = ("after_fork_in_child",)


def after_fork_in_child(callback: Callable[[], None]) -> None:
    """Have it called in each child that is forked from now on; nothing where the system has no fork (Windows)."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=callback)
