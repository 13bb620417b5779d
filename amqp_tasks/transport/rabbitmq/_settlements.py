"""Settlements on their way: gathered from any thread, sent in bunches from the I/O thread.

See `docs/explanation/connections.md`, "A consumer": they leave when a quarter of the prefetch is gathered, else after a
short delay. What belongs to a channel that is gone is counted and dropped, for the broker has requeued it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from amqp_tasks.transport._contract import Settlement
from amqp_tasks.transport.rabbitmq._fastwire import FastDelivery
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._settling import SettleLedger

__all__ = ("Settlements",)

Emit = Callable[[bytes, int], None]
"""Writes so many frames to the connection."""


class Settlements:
    """Thread safety: `add` from any thread, all else on the I/O thread.

    Args:
        loop: of the I/O thread.
        channel: the number of the channel that they belong to.
        delay: seconds for which few of them may be gathered.
        prefetch: what "few" is measured by; changed by the owner.
    """

    def __init__(self, loop: DoorLoop, *, channel: int, delay: float, prefetch: int) -> None:
        self._loop, self._channel, self._delay = loop, channel, delay
        self.prefetch = prefetch
        self.stale = 0
        self.sent = 0
        """How many went out on this channel."""
        # Filled by any thread, emptied by ours: a deque's append and popleft are atomic.
        self._gathered: deque[tuple[FastDelivery, Settlement]] = deque()
        self._is_armed = self._is_urgent = False
        self._timer: Any = None
        self._is_handing_out = False
        self._epoch = -1
        self._ledger = SettleLedger(channel)
        self._emit: Emit | None = None

    def begin(self, epoch: int, emit: Emit) -> None:
        """There is a new channel, whose deliveries have this epoch."""
        self._epoch, self._emit, self.sent = epoch, emit, 0
        self._ledger = SettleLedger(self._channel)

    def end(self) -> None:
        """The channel is gone: what belongs to it is stale from now on."""
        self._epoch, self._emit = -1, None

    def add(self, delivery: FastDelivery, settlement: Settlement) -> None:
        """Have one sent soon."""
        self._gathered.append((delivery, settlement))
        if self._is_handing_out:
            return  # it is looked at after the hand-out: the flag goes down before that, and ours was appended before
        if self._are_many:
            if not self._is_urgent:
                self._is_urgent = True
                self._loop.put(self._flush_now)
        elif not self._is_armed:
            self._is_armed = True
            self._loop.put(self._arm)

    @property
    def _are_many(self) -> bool:
        return len(self._gathered) * 4 >= self.prefetch

    def during(self, hand_out: Callable[[], None]) -> None:
        """Hand deliveries out, then look at what was settled meanwhile."""
        self._is_handing_out = True
        hand_out()
        self._is_handing_out = False
        # Few of them wait: who was just woken by this hand-out would compete with the writing of their ack.
        if self._are_many:
            self.flush()
        elif self._gathered and not self._is_armed:
            self._is_armed = True
            self._arm(None)

    def _arm(self, _none: Any) -> None:
        if self._timer is None:
            self._timer = self._loop.call_guarded(self._delay, self._flush_by_timer)

    def _flush_by_timer(self) -> None:
        self._timer = None
        # Before the deque is read: a settlement that comes in from now on arms anew, at worst for nothing.
        self._is_armed = False
        if self._gathered:
            self.flush()
            # More are to be expected, and arming from here spares their threads the waking of this one.
            self._is_armed = True
            self._arm(None)

    def _flush_now(self, _none: Any) -> None:
        self.flush()

    def flush(self) -> None:
        """Send what is gathered."""
        self._is_urgent = False  # before the deque is read: from now on it is asked for anew
        settlements: dict[int, Settlement] = {}
        gathered, epoch = self._gathered, self._epoch
        for _ in range(len(gathered)):
            delivery, settlement = gathered.popleft()
            if delivery.epoch == epoch:
                settlements[delivery.delivery_tag] = settlement
            else:
                self.stale += 1
        self.sent += len(settlements)
        if settlements and self._emit is not None:
            frames = self._ledger.frames(settlements)
            self._emit(b"".join(frames), len(frames))
