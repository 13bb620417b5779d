"""Which commands of `app.control` a node heeds; see `docs/explanation/journal.md`, "Commands that are refused"."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from amqp_tasks.message import printable

if TYPE_CHECKING:
    from amqp_tasks.message import JournalEntry
    from amqp_tasks.settings import WorkerSettings
    from amqp_tasks.settings._worker import Command

__all__ = ("COMMAND_OF_KIND", "Commands")

logger = logging.getLogger(__name__)

COMMAND_OF_KIND: dict[str, Command] = {
    "revoke": "revoke",
    "unrevoke": "revoke",
    "revoke-stamps": "revoke",
    "unrevoke-stamps": "revoke",
    "pause": "pause",
    "resume": "pause",
    "rate_limit": "rate_limit",
}
"""Of the kinds of entries those that are commands. All others are what nodes tell each other for safety."""


class Commands:
    """Lets entries of the journal pass, but for commands that the settings do not accept.

    Args:
        accepted: names of commands.
    """

    def __init__(self, accepted: Iterable[str]) -> None:
        self._accepted = frozenset(accepted)

    @classmethod
    def of(cls, settings: WorkerSettings) -> Commands:
        """Those that a worker's settings accept."""
        return cls(settings.accept_commands if settings.enable_remote_control else ())

    def heeded(self, entry: JournalEntry) -> JournalEntry | None:
        """What is heeded of an entry: itself, a revocation without the termination that it asks for, or nothing."""
        command = COMMAND_OF_KIND.get(entry.kind)
        if command is None:
            return entry
        if command not in self._accepted:
            return None
        if command == "revoke" and entry.facts.get("terminate") is True and "terminate" not in self._accepted:
            return replace(entry, facts={**entry.facts, "terminate": False})
        return entry

    def tell(self, entry: JournalEntry, heeded: JournalEntry | None) -> None:
        """Log who wants what of all workers, and what of that is not done here."""
        kind, sender, extra = printable(entry.kind), printable(entry.sender), {"action": "journal"}
        if heeded is entry:
            logger.info("journal: %s by %s", kind, sender, extra=extra)
        elif heeded is None:
            logger.warning(
                "journal: %s by %s is refused by worker_accept_commands or worker_enable_remote_control",
                kind, sender, extra=extra,
            )  # fmt: skip
        else:
            logger.warning(
                "journal: %s by %s, without the termination, which worker_accept_commands refuses",
                kind, sender, extra=extra,
            )  # fmt: skip
