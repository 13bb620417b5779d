"""What both decoders say of a body they cannot take."""

from __future__ import annotations

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.serialization._limits import Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("too_deep", "unreadable")


def too_deep(limits: Limits) -> MalformedMessage:
    """The fault of nesting."""
    return MalformedMessage(DeadLetterReason.TOO_DEEP, f"nested deeper than {limits.max_depth}")


def unreadable(exc: BaseException) -> MalformedMessage:
    """The fault of a body that does not parse; the decoder's words on one line, as they may quote the body."""
    said = f"{exc}"[:200]
    return MalformedMessage(DeadLetterReason.BAD_JSON, "".join(c if c.isprintable() else "?" for c in said))
