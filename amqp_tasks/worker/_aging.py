"""Keys that count for a while: bounded, and the oldest leave first."""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from amqp_tasks.clock import Clock

__all__ = ("AgingKeys",)

logger = logging.getLogger(__name__)

K = TypeVar("K", bound=Hashable)


class AgingKeys(Generic[K]):
    """What has been revoked, in the order in which that was said.

    Thread safety: `in` and `bool` from any thread, as the interpreter looks a key up in one step; the rest by the owner only.

    Args:
        what: they are, for the warning that there are too many.
        max_age: seconds after which a key counts no more.
        clock: time.
        maximum: keys that are kept.
        on_forgotten: called with each that leaves, in whatever way; None: nobody is told.
    """

    def __init__(
        self,
        what: str,
        *,
        max_age: float,
        clock: Clock,
        maximum: int,
        on_forgotten: Callable[[K], None] | None = None,
    ) -> None:
        self._what, self._max_age, self._clock, self._maximum = what, max_age, clock, maximum
        self._on_forgotten = on_forgotten
        # Each with the time from which on it counts, in seconds since 1970.
        self._since: OrderedDict[K, float] = OrderedDict()
        self._is_full = False

    def __contains__(self, key: K) -> bool:
        since = self._since.get(key)
        return since is not None and not self._is_old(since)

    def __bool__(self) -> bool:
        return bool(self._since)

    def items(self) -> tuple[tuple[K, float], ...]:
        """All, each with the time from which on it counts, in seconds since 1970; the oldest first."""
        return tuple(self._since.items())

    def add(self, keys: Iterable[K], time: float) -> bool:
        """Have them count from a time on, in seconds since 1970, at the latest from now; False: that is too long ago."""
        since = min(time, self._clock.now().timestamp())
        if self._is_old(since):
            return False
        self._since.update(dict.fromkeys(keys, since))
        return True

    def forget(self, key: K) -> None:
        """Have it count no more."""
        if self._since.pop(key, None) is not None and self._on_forgotten is not None:
            self._on_forgotten(key)

    def drop_surplus(self) -> None:
        """Forget those that are too many or too old."""
        while len(self._since) > self._maximum:
            self.forget(next(iter(self._since)))
            if not self._is_full:
                self._is_full = True
                logger.warning(
                    "more than %d %s are revoked: the oldest revocations are forgotten", self._maximum, self._what,
                    extra={"action": "revocations"},
                )  # fmt: skip
        while self._since and self._is_old(next(iter(self._since.values()))):
            self.forget(next(iter(self._since)))

    def _is_old(self, since: float) -> bool:
        return self._clock.now().timestamp() - since > self._max_age
