"""How many messages may be unconfirmed at a time."""

from __future__ import annotations

__all__ = ("SendWindow",)


class SendWindow:
    """Full at first; after a loss it starts small and grows by one with each confirm, so it doubles per round trip.

    All that is unconfirmed at a loss is sent again. Connections that live for less time than a full window needs would
    otherwise carry the same messages again and again, and the broker would store the copies before anything new.
    Owner thread only.
    """

    AFTER_LOSS = 16
    MAX_OVERDUE = 10
    """Windows full of messages past their deadline that may wait for a late confirm without taking up room."""

    def __init__(self, limit: int) -> None:
        self.limit = self.size = limit
        self._overdue = 0

    def has_room(self, unconfirmed: int) -> bool:
        """Whether one more may be written."""
        return unconfirmed - min(self._overdue, self.MAX_OVERDUE * self.limit) < self.size

    def confirmed(self) -> None:
        """The broker answered one message."""
        if self.size < self.limit:
            self.size += 1

    def became_overdue(self) -> None:
        """A written message's deadline passed. A queue that never confirms must not stop the others for ever."""
        self._overdue += 1

    def overdue_confirmed(self) -> None:
        """It was confirmed after all."""
        self._overdue -= 1

    def channel_gone(self) -> None:
        """Nothing is unconfirmed any more."""
        self._overdue = 0

    def lost(self) -> None:
        """The connection is gone."""
        self._overdue = 0
        self.size = min(self.limit, self.AFTER_LOSS)
