"""What an entry of the journal says of stamps, and of tasks that run: these are to be ended."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import DeadLetterReason, fact_texts, has_stamp

if TYPE_CHECKING:
    from amqp_tasks.message import Envelope, JournalEntry

__all__ = ("Termination", "stamps_in", "termination_in")


@dataclass(frozen=True, slots=True, kw_only=True)
class Termination:
    """That running tasks are to be ended.

    Attributes:
        ids: which.
        stamps: and those with one of these names and values.
        signal: what their process gets, if it has a handler.
    """

    ids: tuple[str, ...] = ()
    stamps: frozenset[tuple[str, Any]] = frozenset()
    signal: signal.Signals

    def is_meant(self, envelope: Envelope) -> bool:
        """Whether a task is."""
        return envelope.id in self.ids or has_stamp(envelope.headers, self.stamps.__contains__)


def termination_in(entry: JournalEntry) -> Termination | None:
    """What an entry says of running tasks; None: nothing.

    Raises:
        MalformedMessage: it is such an entry with facts of other types.
    """
    if entry.kind not in {"revoke", "revoke-stamps"}:
        return None
    wanted = entry.facts.get("terminate", False)
    if not isinstance(wanted, bool):
        raise MalformedMessage(
            DeadLetterReason.BAD_BODY, f"'terminate' of a {entry.kind!r} entry is no boolean"
        )
    if not wanted:
        return None
    # A name that this system does not know: the task is ended all the same.
    number = getattr(signal.Signals, str(entry.facts.get("signal")), signal.SIGTERM)
    if entry.kind == "revoke-stamps":
        return Termination(stamps=frozenset(stamps_in(entry)), signal=number)
    return Termination(ids=fact_texts(entry, "ids"), signal=number)


def stamps_in(entry: JournalEntry) -> list[tuple[str, Any]]:
    """What the entry says of stamps: each value with its name.

    Raises:
        MalformedMessage: the fact `stamps` is no object of arrays of texts, numbers and booleans.
    """
    found: Any = entry.facts.get("stamps")
    if isinstance(found, dict) and all(  # pyright: ignore[reportUnknownVariableType]
        isinstance(values, list) and all(isinstance(each, str | int | float) for each in values)  # pyright: ignore[reportUnknownVariableType]
        for values in found.values()  # pyright: ignore[reportUnknownVariableType]
    ):
        return [(name, value) for name, values in found.items() for value in values]  # pyright: ignore[reportUnknownVariableType]
    raise MalformedMessage(
        DeadLetterReason.BAD_BODY, f"'stamps' of a {entry.kind!r} entry is no object of arrays"
    )
