"""Who sends the signatures that nobody is known for. Apps say so here, and signatures ask here: neither loads the other for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ("others",)

others: list[Callable[[], Any]] = []
"""None or one: gives the `amqp_tasks.canvas.Sender` of the moment, or raises ConfigurationError where there is none."""
