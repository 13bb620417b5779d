"""Text from messages made safe to show, and bounded representations of values."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any

__all__ = ("BoundedRepr", "bounded_repr", "failed_repr", "header_text", "listed", "printable")

HIDDEN = "***"
"""What stands in logs and headers for an argument that is `sensitive`."""
MAX_REPR = 1024
"""Characters of `argsrepr` and `kwargsrepr`; Celery's own limit."""
_LISTED = 5


def printable(text: object, limit: int = 255) -> str:
    """One line of text that cannot move a terminal's cursor or forge a log line.

    Control characters, line ends, escapes, direction marks and lone surrogates become backslash escapes; what is
    longer than `limit` characters is cut and ends in `…`. Anything but text is shown by its repr.
    """
    shown = text if isinstance(text, str) else bounded_repr(text, limit)
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    if shown.isprintable():
        return shown
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode("ascii") for char in shown
    )


def listed(names: Iterable[str]) -> str:
    """Names in order, a few of them and how many more there are."""
    known = sorted(map(printable, names))
    more = f" and {len(known) - _LISTED} more" if len(known) > _LISTED else ""
    return ", ".join(known[:_LISTED]) + more


def header_text(text: str, limit: int) -> str:
    """Text that fits an AMQP header: no lone surrogates, at most `limit` characters."""
    if len(text) > limit:
        text = text[: limit - 3] + "..."
    if text.isascii():
        return text
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


class BoundedRepr(reprlib.Repr):
    """reprlib, but it never sorts a dict's keys and never trusts the `__repr__` of a container."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxtuple = self.maxlist = self.maxdict = self.maxset = self.maxfrozenset = 40
        self.maxstring = self.maxother = self.maxlong = 400

    def repr_dict(self, x: Mapping[Any, Any], level: int) -> str:
        """Like reprlib's, in the dict's own order."""
        if not x:
            return "{}"
        if level <= 0:
            return "{...}"
        shown = [
            f"{self.repr1(key, level - 1)}: {self.repr1(x[key], level - 1)}"
            for key in islice(x, self.maxdict)
        ]
        return "{" + ", ".join(shown + ["..."] * (len(x) > self.maxdict)) + "}"

    def repr_instance(self, x: Any, level: int) -> str:
        """As its class says; else subclasses of the built-in containers and texts are cut like these."""
        own = getattr(type(x), "__bounded_repr__", None)  # pyright: ignore[reportUnknownArgumentType] - any class
        if own is not None:
            return str(own(x))
        for base, name in _BY_BASE:
            if isinstance(x, base):
                return str(getattr(self, name)(x, level))
        return super().repr_instance(x, level)

    def repr_bytes(self, x: bytes, level: int) -> str:
        """Cut before it is escaped."""
        return repr(x[: self.maxstring]) + ("..." if len(x) > self.maxstring else "")


_BY_BASE: tuple[tuple[type, str], ...] = (
    (str, "repr_str"),
    (bytes, "repr_bytes"),
    (dict, "repr_dict"),
    (list, "repr_list"),
    (tuple, "repr_tuple"),
)

_bounded = BoundedRepr()


def bounded_repr(value: Any, limit: int = MAX_REPR) -> str:
    """A repr of at most `limit` characters whose cost does not grow with the value; never raises.

    A class may say itself how its instances are shown, where they are a container that holds what nobody may be shown: its method
    `__bounded_repr__()` returns the text, whose cost must not grow either.
    """
    try:
        return header_text(_bounded.repr(value), limit)
    except (Exception, SystemExit):  # noqa: BLE001 - a user's __repr__ may raise anything; a label must fail neither a send nor a run
        return failed_repr(value)


def failed_repr(value: Any) -> str:
    """What stands for a value whose repr raises."""
    return f"<{type(value).__name__}: repr failed>"
