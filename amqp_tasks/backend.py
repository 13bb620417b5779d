"""The contract of result backends: where an outcome goes, and how a caller learns of it.

A backend has two sides that never meet in one object's state: the caller's (`reply_to`, `expect`, `Expected`) and the
worker's (`store_nowait`). `backends/rpc.py` is the default implementation; `docs/explanation/results.md` tells the
states of a reply queue and the rule for each failure.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqp_tasks.message import ResultRecord

__all__ = ("BackendStatistics", "ExpectedResult", "ResultBackend")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendStatistics:
    """Counters of a backend's calling side since it was built (or since the fork).

    Attributes:
        expected: results asked for and still held by somebody.
        received: result messages that were read.
        dropped: result messages whose id nobody holds here.
        unreadable: messages on the reply queue that were no result.
        lost: results given up because their reply queue disappeared.
    """

    expected: int = 0
    received: int = 0
    dropped: int = 0
    unreadable: int = 0
    lost: int = 0


class ExpectedResult(ABC):
    """One result that this process waits for, held by its `AsyncResult` objects.

    The backend keeps only a weak reference: when the last holder is gone, the result is dropped on arrival.

    Thread safety: any thread.
    """

    __slots__ = ()

    @abstractmethod
    def peek(self) -> ResultRecord | None:
        """The newest state that is known here (a final one stays); None when none was received. Never blocks.

        Raises:
            ResultLost, ClosedError, PublishError: as `wait`: a caller who polls must not do so for ever.
        """

    @abstractmethod
    def wait(self, timeout: float | None) -> bool:
        """Wait until the result is final; False when `timeout` seconds passed first (None: no limit).

        Interruptible by signals.

        Raises:
            ResultLost: the place where the result was to arrive is gone.
            ClosedError: the backend was closed.
            PublishError: the call itself failed after `apply_async(confirm=False)` had returned.
            RuntimeError: called on the I/O thread, in a callback, before the result is there.
        """

    @abstractmethod
    def on_ready(self, callback: Callable[[], None]) -> None:
        """Call `callback` exactly once when the result is final, failed or lost; at once when it already is.

        It runs on the I/O thread (or the caller's, when at once) and must not block.
        """

    @abstractmethod
    def withdraw(self, callback: Callable[[], None]) -> None:
        """End `on_ready`; an unknown callback, and one that has been called, is fine."""

    @abstractmethod
    def listen(self, listener: Callable[[ResultRecord], object]) -> None:
        """Call `listener` with each state that arrives from now on, on the I/O thread; it must not block."""

    @abstractmethod
    def unlisten(self, listener: Callable[[ResultRecord], object]) -> None:
        """End `listen`; an unknown listener is fine."""

    @abstractmethod
    def fail(self, error: Exception) -> None:
        """End the wait with `error`; for a call that could not be sent. A result that arrives later wins."""


class ResultBackend(ABC):
    """Where results go. Constructing does no I/O; `close` is final."""

    @abstractmethod
    def reply_to(self, *, timeout: float) -> str:
        """The `reply_to` of calls made by this process; the place exists when this returns.

        Raises:
            BrokerConnectionError: it could not be set up within `timeout` seconds.
        """

    @abstractmethod
    def expect(self, task_id: str, *, reply_to: str) -> ExpectedResult:
        """Be ready for the result of `task_id`; to be called before the task is published.

        Args:
            task_id: of the call.
            reply_to: what `reply_to()` gave for it; if that place is gone already, the expectation has ended.
        """

    @abstractmethod
    def lookup(self, task_id: str) -> ExpectedResult:
        """The result of an id that was not necessarily called here.

        Raises:
            ResultUnavailable: this backend cannot know that result; says why and what to do.
        """

    @abstractmethod
    def forget(self, task_id: str) -> None:
        """Drop what is known of `task_id`; its result is dropped on arrival. Unknown ids are fine."""

    @abstractmethod
    def write(self, record: ResultRecord) -> None:
        """Encode a record on this thread and keep that in it: its `store_nowait` then runs none of users' code. Idempotent.

        Raises:
            EncodeError: the result cannot be serialized.
        """

    @abstractmethod
    def store_nowait(
        self,
        record: ResultRecord,
        *,
        reply_to: str,
        correlation_id: str,
        on_stored: Callable[[Exception | None], None],
    ) -> None:
        """Store a state or outcome from a worker and return; `on_stored` is called exactly once, on the I/O thread.

        An outcome that has no reader any more (the caller's reply queue is gone) is not: `on_stored` gets the
        `UnroutableError`, and trying again is of no use.

        Raises:
            EncodeError: the result cannot be serialized.
        """

    @abstractmethod
    def statistics(self) -> BackendStatistics:
        """Counters of the calling side."""

    @abstractmethod
    def close(self, *, timeout: float = 5.0) -> None:
        """Stop consuming results; waits in progress end with `ClosedError`. Idempotent."""
