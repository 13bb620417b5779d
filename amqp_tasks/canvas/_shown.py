"""Signatures as texts for people: without what nobody may be shown, and at a cost that does not grow with them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message._printable import HIDDEN, BoundedRepr, failed_repr

if TYPE_CHECKING:
    from amqp_tasks.canvas._signature import Sender, Signature

__all__ = ("Shown",)

_MAX_TEXT = 60
"""Characters of one argument."""
_MAX_NAME = 255
_MAX_ITEMS = 40
"""Parts of what is composed, and arguments of one call."""
_MAX_LEVEL = 8
_MAX_VALUES = 500
"""Values in all of one text, as deep as they may be."""
_PARTS = ("tasks", "header", "body")


class Shown(BoundedRepr):
    """Shows one signature, once, and never raises.

    1. A call whose task has `sensitive` arguments is its name and `***`. Who sends it is asked, and who sends what it is in; where
       nobody is known, the sender of the moment. This holds for dictionaries of signatures as well, which come from JSON.
    2. A sender that cannot tell is taken to say yes.
    3. What is long, wide or deep is cut.

    Args:
        other_sender: gives the sender of the moment, or None.
    """

    def __init__(self, other_sender: Callable[[], Sender | None]) -> None:
        super().__init__()
        self.maxlevel = _MAX_LEVEL
        self._other_sender = other_sender
        self._senders: tuple[Sender, ...] = ()
        self._left = _MAX_VALUES

    def repr1(self, x: Any, level: int) -> str:
        """One value, of as many as may be shown."""
        self._left -= 1
        if self._left < 0:
            return "..."
        try:
            return super().repr1(x, level)
        except Exception:  # noqa: BLE001 - an argument's __repr__ may raise anything, and fields may be what no signature has
            return failed_repr(x)

    def repr_instance(self, x: Any, level: int) -> str:
        """Signatures by their senders, all else as usual."""
        from amqp_tasks.canvas._signature import Signature

        return self._signature(x, level) if isinstance(x, Signature) else super().repr_instance(x, level)

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """As usual, unless it is the dictionary of a signature with secrets."""
        name = x.get("task")
        if isinstance(name, str) and self._hides(x):
            return _hidden(name)
        return super().repr_dict(x, level)

    def call(self, name: str, args: Iterable[Any], kwargs: Mapping[str, Any], level: int) -> str:
        """A call that has no secrets."""
        # One more than is shown, to see that there is one.
        given = [("", value) for value in islice(args, _MAX_ITEMS + 1)]
        given += [(f"{key!s:.{_MAX_NAME}}=", value) for key, value in islice(kwargs.items(), _MAX_ITEMS + 1)]
        shown = [f"{key}{_cut(self.repr1(value, level))}" for key, value in given[:_MAX_ITEMS]]
        return f"{name:.{_MAX_NAME}}({', '.join(shown + ['...'] * (len(given) > _MAX_ITEMS))})"

    def parts(self, items: Iterable[Any], level: int) -> list[str]:
        """Parts of what is composed."""
        found = list(islice(items, _MAX_ITEMS + 1))
        return [self.part(item, level) for item in found[:_MAX_ITEMS]] + ["..."] * (len(found) > _MAX_ITEMS)

    def part(self, item: Any, level: int) -> str:
        """One part: a signature or its dictionary; shows anything else as it is."""
        from amqp_tasks.canvas._compose import as_part

        with suppress(ConfigurationError):
            item = as_part(item)
        return self.repr1(item, level)

    def _signature(self, found: Signature, level: int) -> str:
        around = self._senders
        own = _first_sender(found)
        if own is not None:
            self._senders = (*around, own)
        try:
            if self._hides(found):
                return _hidden(found.task)
            return found.shown(self, level - 1) if level > 0 else f"{found.task:.{_MAX_NAME}}(...)"
        finally:
            self._senders = around

    def _hides(self, call: Mapping[str, Any]) -> bool:
        senders = self._senders
        if not senders and (other := self._other_sender()) is not None:
            senders = (other,)
        try:
            return any(sender.has_secrets(call) for sender in senders)
        except Exception:  # noqa: BLE001 - a sender may be anybody's
            return True


def _hidden(name: str) -> str:
    # Which of the arguments are secret cannot be told: further ones may come before these.
    return f"{name:.{_MAX_NAME}}({HIDDEN})"


def _cut(text: str) -> str:
    return text if len(text) <= _MAX_TEXT else f"{text[:_MAX_TEXT]}…"


def _first_sender(found: Signature) -> Sender | None:
    """Its own sender, or that of the first in it that has one; a generator is left as it is, and what is large is not searched to its end."""
    todo: list[Any] = [found]
    for _ in range(_MAX_VALUES):
        if not todo:
            break
        item = todo.pop()
        sender: Sender | None = getattr(item, "sender", None)
        if sender is not None:
            return sender
        todo += reversed(_inner(item))
    return None


def _inner(item: Any) -> list[Any]:
    """The parts of what is composed, or of its dictionary, and nothing of anything else."""
    kwargs: Any = item.get("kwargs") if isinstance(item, dict) and item.get("subtask_type") else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if not isinstance(kwargs, dict):
        return []
    inner: list[Any] = []
    for name in _PARTS:
        found: Any = kwargs.get(name)  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        inner += found[:_MAX_ITEMS] if isinstance(found, list | tuple) else [found]  # pyright: ignore[reportUnknownVariableType]
    return inner
