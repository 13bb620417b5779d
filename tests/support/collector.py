"""What a transport's consumer hands out, collected for a test that waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence

from amqp_tasks.transport import Consumer, ConsumerEvent, ConsumerState, Delivery, Settlement

__all__ = ("Collector",)


class Collector:
    """The two callbacks of `Transport.consume`; callbacks append, the test's thread waits."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.deliveries: list[Delivery] = []
        self.events: list[ConsumerEvent] = []
        self.threads: set[str] = set()
        self.consumer: Consumer | None = None
        self.settle_at_once: Settlement | None = None
        self.during_events: Callable[[], object] = bool
        """Called within each event that comes from now on, before it is collected."""

    def on_deliveries(self, batch: Sequence[Delivery]) -> None:
        """Collect; settle at once where the test wants that."""
        if self.settle_at_once is not None and self.consumer is not None:
            for delivery in batch:
                self.consumer.settle(delivery, self.settle_at_once)
        with self.changed:
            self.deliveries += batch
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()

    def on_event(self, event: ConsumerEvent) -> None:
        """Collect."""
        self.during_events()
        with self.changed:
            self.events.append(event)
            self.threads.add(threading.current_thread().name)
            self.changed.notify_all()

    def _wait(self, condition: Callable[[], bool], within: float) -> bool:
        with self.changed:
            return self.changed.wait_for(condition, within)

    def wait_deliveries(self, count: int, *, within: float = 10.0) -> list[Delivery]:
        """Wait for so many deliveries in all; returns all there are."""
        came = self._wait(lambda: len(self.deliveries) >= count, within)
        assert came, f"{len(self.deliveries)} of {count} deliveries came; events: {self.events}"
        return list(self.deliveries)

    def wait_event(self, state: ConsumerState, *, count: int = 1, within: float = 15.0) -> ConsumerEvent:
        """Wait for the n-th event of that state."""
        came = self._wait(lambda: len(self.events_of(state)) >= count, within)
        assert came, f"event {state} did not come {count} times: {self.events}"
        return self.events_of(state)[count - 1]

    def events_of(self, state: ConsumerState) -> list[ConsumerEvent]:
        """The events of one state so far."""
        return [event for event in self.events if event.state is state]

    @property
    def bodies(self) -> list[bytes]:
        """The bodies so far, in order."""
        return [delivery.body for delivery in self.deliveries]
