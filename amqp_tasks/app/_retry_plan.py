"""When a task that fails is run again, as a value: some retries at once, then others after pauses."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Protocol

from amqp_tasks.clock import MAX_SECONDS
from amqp_tasks.errors import ConfigurationError

__all__ = ("Backoff", "Pauses", "RetryPlan", "Steps")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_seconds(what: str, value: Any) -> None:
    if not _is_number(value) or not 0 <= value <= MAX_SECONDS:
        raise ConfigurationError(
            f"{what} must be a number of seconds from 0 (at most a century), got {value!r:.60}"
        )


def _check_count(what: str, value: Any, otherwise: str) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ConfigurationError(f"{what} must be a whole number from 0{otherwise}, got {value!r:.60}")


def _classes(what: str, value: Any) -> tuple[type[Exception], ...]:
    given: tuple[Any, ...] = tuple(value) if isinstance(value, tuple | list) else (value,)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType] - checked below
    for each in given:
        if not (isinstance(each, type) and issubclass(each, Exception)):
            raise ConfigurationError(f"{what} takes exception classes, got {each!r:.60}")
    return given


class Pauses(Protocol):
    """How often a task is retried after a pause, and how long each is."""

    @property
    def times(self) -> int | None:
        """How often; None: without end."""
        ...

    def pause(self, number: int) -> float:
        """Seconds before the retry `number`, counted from 0; also of one beyond `times`."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Backoff:
    """Pauses that grow: `first` seconds, then each `factor` times the one before, at most `maximum`.

    >>> [Backoff(first=5, jitter=False).pause(number) for number in (0, 1, 2, 10)]
    [5.0, 10.0, 20.0, 600.0]

    Attributes:
        first: seconds before the first one.
        factor: at least 1; 1 keeps the pause.
        maximum: seconds at most.
        jitter: each is drawn evenly between 0 and what it would be, so that failures together do not come back together.
        times: how many there are; None: without end.

    Raises:
        ConfigurationError: a number that cannot be.
    """

    first: float = 1.0
    factor: float = 2.0
    maximum: float = 600.0
    jitter: bool = True
    times: int | None = 3

    def __post_init__(self) -> None:
        _check_seconds("Backoff.first", self.first)
        _check_seconds("Backoff.maximum", self.maximum)
        if not _is_number(self.factor) or not 1 <= self.factor <= MAX_SECONDS:
            raise ConfigurationError(
                f"Backoff.factor must be a number of at least 1, got {self.factor!r:.60}"
            )
        if self.times is not None:
            _check_count("Backoff.times", self.times, ", or None for no end")

    def pause(self, number: int) -> float:
        """See `Pauses.pause`."""
        try:
            seconds = min(float(self.maximum), self.first * float(self.factor) ** number)
        except OverflowError:
            seconds = float(self.maximum)
        return random.uniform(0, seconds) if self.jitter else seconds  # noqa: S311 - no secret


@dataclass(frozen=True, slots=True, init=False)
class Steps:
    """Pauses of these seconds, one after the other: `Steps(10, 60, 600)`.

    >>> [Steps(10, 60, 600).pause(number) for number in (0, 1, 2, 3)]
    [10, 60, 600, 600]

    Raises:
        ConfigurationError: none, or a number that cannot be.
    """

    seconds: tuple[float, ...]

    def __init__(self, *seconds: float) -> None:
        if not seconds:
            raise ConfigurationError("Steps needs at least one pause in seconds: write Steps(10, 60)")
        for each in seconds:
            _check_seconds("each of Steps", each)
        object.__setattr__(self, "seconds", seconds)

    @property
    def times(self) -> int:
        """See `Pauses.times`."""
        return len(self.seconds)

    def pause(self, number: int) -> float:
        """See `Pauses.pause`."""
        return self.seconds[min(number, len(self.seconds) - 1)]


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPlan:
    """Which failures of a task are retried, how often and when: the option `retry_plan` of a task.

    A value: one plan may serve many tasks. It stands in place of the options `autoretry_for`, `dont_autoretry_for`,
    `retry_kwargs`, `retry_backoff…`, `retry_jitter`, `default_retry_delay` and `max_retries`.

    Attributes:
        fast: how many retries come first, without a pause; each is sent by way of the broker, as all retries are.
        then: the retries after those; None: no more.
        on: exception classes for which it is retried.
        not_on: exception classes for which it is not, though they are among `on`.

    Raises:
        ConfigurationError: a value that cannot be.
    """

    fast: int = 0
    then: Backoff | Steps | None = Backoff()
    on: tuple[type[Exception], ...] = (Exception,)
    not_on: tuple[type[Exception], ...] = ()

    def __post_init__(self) -> None:
        _check_count("RetryPlan.fast", self.fast, "")
        if not isinstance(self.then, Backoff | Steps | None):  # pyright: ignore[reportUnnecessaryIsInstance] - callers pass anything
            raise ConfigurationError(
                f"RetryPlan.then must be a Backoff, Steps or None, got {self.then!r:.60}: write then=Steps(10, 60)"
            )
        for name in ("on", "not_on"):
            object.__setattr__(self, name, _classes(f"RetryPlan.{name}", getattr(self, name)))

    @property
    def limit(self) -> int | None:
        """How many retries there are in all; None: without end."""
        if self.then is None:
            return self.fast
        return None if self.then.times is None else self.fast + self.then.times

    def pause(self, retries: int) -> float:
        """Seconds until the retry that follows `retries` others."""
        if self.then is None or retries < self.fast:
            return 0.0
        return self.then.pause(retries - self.fast)

    def covers(self, exc: BaseException) -> bool:
        """Whether a task that ended with `exc` is retried."""
        return isinstance(exc, self.on) and not isinstance(exc, self.not_on)
