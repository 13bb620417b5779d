"""A store for one process: for tests, and for `memory://`."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass

from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.idempotency._contract import Claim, ClaimState, Holder

__all__ = ("MemoryStore",)


@dataclass(slots=True)
class _Entry:
    """Times are monotonic; `value` is None until it is done."""

    holder: Holder
    expires: float
    leased_until: float = -math.inf
    value: bytes | None = None


class MemoryStore:
    """See `IdempotencyStore`. What has expired goes when its key is asked for, or when others are noted."""

    def __init__(self, *, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._known: dict[str, _Entry] = {}

    def claim(
        self, key: str, holder: Holder, *, seconds: float, lease: float, is_successor: bool = False
    ) -> Claim:
        """See `IdempotencyStore.claim`."""
        with self._lock:
            self._drop_expired()
            now, found = self._clock.monotonic(), self._known.get(key)
            if found is not None and found.value is not None:
                return Claim(state=ClaimState.DONE, value=found.value)
            if found is not None and found.holder != holder:
                is_free = is_successor or found.leased_until <= now
                if found.holder.owner != holder.owner or not is_free:
                    return Claim(state=ClaimState.TAKEN)
            self._known[key] = _Entry(holder, now + seconds, now + lease)
            return Claim(state=ClaimState.OWN)

    def renew(self, key: str, holder: Holder, *, lease: float) -> None:
        """See `IdempotencyStore.renew`."""
        with self._lock:
            if (found := self._claimed(key, holder)) is not None:
                found.leased_until = self._clock.monotonic() + lease

    def rest(self, key: str, holder: Holder) -> None:
        """See `IdempotencyStore.rest`."""
        with self._lock:
            if (found := self._claimed(key, holder)) is not None:
                found.leased_until = -math.inf

    def finish(self, key: str, holder: Holder, value: bytes, *, seconds: float) -> None:
        """See `IdempotencyStore.finish`."""
        with self._lock:
            self._known[key] = _Entry(holder, self._clock.monotonic() + seconds, value=value)

    def release(self, key: str, holder: Holder) -> None:
        """See `IdempotencyStore.release`."""
        with self._lock:
            if self._claimed(key, holder) is not None:
                del self._known[key]

    def close(self) -> None:
        """See `IdempotencyStore.close`."""

    def _claimed(self, key: str, holder: Holder) -> _Entry | None:
        found = self._known.get(key)
        return found if found is not None and found.value is None and found.holder == holder else None

    def _drop_expired(self) -> None:
        now = self._clock.monotonic()
        self._known = {key: entry for key, entry in self._known.items() if entry.expires > now}
