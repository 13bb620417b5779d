"""Settlements of one channel, turned into the fewest frames. Pure; owner thread only."""

from __future__ import annotations

from collections.abc import Iterator

from amqp_tasks.transport._contract import Settlement
from amqp_tasks.transport.rabbitmq._fastwire import ack_frame, nack_frame, reject_frame

__all__ = ("SettleLedger",)


class SettleLedger:
    """Knows which tags of a channel are open, and how to settle a bunch of them.

    Delivery tags of a channel count from 1. `multiple=True` settles every open tag up to one, so it is used exactly
    where all tags up to there are settled: from the lowest open tag on, in runs of equal settlements.

    A delivery that stays open for long (a long task) must not make it remember every later tag: when those are many, it
    turns to remembering the few open ones below (`_holes`), and settles one by one until they are gone.
    """

    MAX_ABOVE = 1024

    def __init__(self, channel: int) -> None:
        self._channel = channel
        self._floor = 0  # every tag up to here is settled on the wire, except the holes
        self._holes: set[int] = set()
        self._above: set[int] = set()  # settled one by one above the floor

    def frames(self, settlements: dict[int, Settlement]) -> list[bytes]:
        """The frames for a bunch of new settlements, by delivery tag."""
        frames: list[bytes] = []
        for tag in sorted(self._holes & settlements.keys()):
            frames.append(self._frame(tag, settlements.pop(tag), multiple=False))
            self._holes.discard(tag)
        self._advance(settlements, frames)
        for tag in sorted(settlements):
            frames.append(self._frame(tag, settlements[tag], multiple=False))
            self._above.add(tag)
        if len(self._above) > self.MAX_ABOVE:
            self._raise_floor()
        return frames

    def _raise_floor(self) -> None:
        top = max(self._above)
        self._holes.update(tag for tag in range(self._floor + 1, top) if tag not in self._above)
        self._above.clear()
        self._floor = top

    @property
    def remembered(self) -> int:
        """How many tags are kept in memory."""
        return len(self._above) + len(self._holes)

    def _advance(self, settlements: dict[int, Settlement], frames: list[bytes]) -> None:
        """Move the floor as far as it goes; takes what it covers out of `settlements`."""
        run: list[int] = []
        kind: Settlement | None = None
        for tag, settlement in self._take_from_floor(settlements):
            if settlement is not kind and kind is not None:
                self._settle_run(run, kind, frames)
                run = []
            kind = settlement
            run.append(tag)
        if kind is not None:
            self._settle_run(run, kind, frames)

    def _take_from_floor(self, settlements: dict[int, Settlement]) -> Iterator[tuple[int, Settlement]]:
        tag = self._floor + 1
        while True:
            if tag in self._above:
                self._above.discard(tag)
            else:
                settlement = settlements.pop(tag, None)
                if settlement is None:
                    break
                yield tag, settlement
            tag += 1
        self._floor = tag - 1

    def _settle_run(self, run: list[int], kind: Settlement, frames: list[bytes]) -> None:
        if self._holes or kind is Settlement.RETURN:
            frames.extend(self._frame(tag, kind, multiple=False) for tag in run)
        else:
            frames.append(self._frame(run[-1], kind, multiple=len(run) > 1))

    def _frame(self, tag: int, settlement: Settlement, *, multiple: bool) -> bytes:
        if settlement is Settlement.ACK:
            return ack_frame(self._channel, tag, multiple=multiple)
        if settlement is Settlement.RETURN:
            return reject_frame(self._channel, tag)
        return nack_frame(self._channel, tag, multiple=multiple, requeue=settlement is Settlement.REQUEUE)
