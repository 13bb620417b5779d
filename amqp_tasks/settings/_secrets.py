"""Secrets that do not show: a value that masks itself, and a scrubber for text that others wrote."""

from __future__ import annotations

import re
from typing import Self

from amqp_tasks.errors import ConfigurationError

__all__ = ("MASK", "Secret", "mask_secrets")

MASK = "**"

# User and password up to the last "@" before a blank or the next URL. Greedy on purpose: a password may hold "@", "/"
# or quotes that nobody percent-encoded, and masking too much is the right side to err on.
_URL_PASSWORD = re.compile(r"(://[^\s:/]*):(?:(?!://)\S)*@")
_NAMED_SECRET = re.compile(
    r"""(?ix) (\b[\w-]*(?:password|passwd|passphrase|secret)\b ['"]? \s* [=:] \s*)
        (?! Secret\() (?: '(?:\\.|[^'\\])*' | "(?:\\.|[^"\\])*" | [^\s,;)}\]&'"]+ )"""
)


class Secret:
    """A text that neither str, repr, format nor pickle show.

    Pickling drops the value: a pickle may end in a file, a message or a log. The copy says so when it is asked.

    Thread safety: immutable.
    """

    __slots__ = ("_value",)
    _value: str | None

    def __init__(self, value: str) -> None:
        self._value = value

    def get_secret_value(self) -> str:
        """The text itself.

        Raises:
            ConfigurationError: this is the copy out of a pickle, which does not carry the value.
        """
        if self._value is None:
            raise ConfigurationError(
                "a secret does not travel through pickle: give the other process its settings by the environment "
                "or by its own configuration"
            )
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return self._value == other._value if isinstance(other, Secret) else NotImplemented

    def __hash__(self) -> int:
        return hash((Secret, self._value))

    def __repr__(self) -> str:
        return f"Secret({MASK!r})"

    def __str__(self) -> str:
        return MASK

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[object, ...]:
        return _without_value, ()


def _without_value() -> Secret:
    secret = Secret("")
    secret._value = None
    return secret


def mask_secrets(text: str, *known: Secret) -> str:
    """`text` without passwords: those in URLs, those after a name such as `password=`, and the `known` ones.

    For text that others wrote: exceptions of a client library, a configuration module's traceback, `repr` of a value
    of the wrong type.

    >>> mask_secrets("cannot reach amqp://me:hunter2@mq:5672//")
    'cannot reach amqp://me:**@mq:5672//'
    """
    for secret in known:
        if secret:
            text = text.replace(secret.get_secret_value(), MASK)
    text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
    return _NAMED_SECRET.sub(rf"\1{MASK}", text)
