"""No results: what `result_backend = None` gives, and what calls that want no result hold."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from amqp_tasks.backend import BackendStatistics, ExpectedResult, ResultBackend
from amqp_tasks.errors import ResultUnavailable
from amqp_tasks.message import ResultRecord

__all__ = ("DisabledBackend", "UnknowableResult")


class UnknowableResult(ExpectedResult):
    """A result that nobody can know; every question says why, unless the call itself failed."""

    __slots__ = ("_error", "_reason")

    def __init__(self, reason: str) -> None:
        self._reason = reason
        self._error: Exception | None = None

    def peek(self) -> ResultRecord | None:
        """Raise.

        Raises:
            ResultUnavailable: always.
        """
        self._refuse()

    def wait(self, timeout: float | None) -> bool:
        """Raise.

        Raises:
            ResultUnavailable: always, unless `fail` gave another error.
        """
        self._refuse()

    def on_ready(self, callback: Callable[[], None]) -> None:
        """Raise.

        Raises:
            ResultUnavailable: always.
        """
        self._refuse()

    def withdraw(self, callback: Callable[[], None]) -> None:
        """None is kept."""

    def listen(self, listener: Callable[[ResultRecord], object]) -> None:
        """Nothing ever arrives."""

    def unlisten(self, listener: Callable[[ResultRecord], object]) -> None:
        """Nothing to end."""

    def fail(self, error: Exception) -> None:
        """Remember why the call could not be sent."""
        self._error = error

    def _refuse(self) -> NoReturn:
        raise self._error or ResultUnavailable(self._reason)


class DisabledBackend(ResultBackend):
    """Stores nothing and knows nothing."""

    def reply_to(self, *, timeout: float) -> str:
        """Empty: workers send nothing."""
        return ""

    def expect(self, task_id: str, *, reply_to: str = "") -> ExpectedResult:
        """An expectation that refuses every question, naming the setting."""
        return UnknowableResult(
            f"the result of task {task_id} cannot be known: no result backend is set; set result_backend='rpc://'"
        )

    def lookup(self, task_id: str) -> ExpectedResult:
        """As `expect`."""
        return self.expect(task_id)

    def forget(self, task_id: str) -> None:
        """Nothing is kept."""

    def write(self, record: ResultRecord) -> None:
        """Nobody reads it, so it need not be written."""

    def store_nowait(
        self,
        record: ResultRecord,
        *,
        reply_to: str,
        correlation_id: str,
        on_stored: Callable[[Exception | None], None],
    ) -> None:
        """Nobody reads it, so it counts as stored at once, on this thread."""
        on_stored(None)

    def statistics(self) -> BackendStatistics:
        """Nothing to count."""
        return BackendStatistics()

    def close(self, *, timeout: float = 5.0) -> None:
        """Nothing to close."""
