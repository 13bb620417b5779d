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
    try:
        said = f"{exc}"[:200]
    except (Exception, SystemExit):  # noqa: BLE001 - what a user's decoder raises may have any code behind its text
        said = f"{type(exc).__name__} (its text cannot be made)"
    return MalformedMessage(DeadLetterReason.BAD_JSON, "".join(c if c.isprintable() else "?" for c in said))
