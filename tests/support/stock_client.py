"""A client of stock Celery in a process of its own, so that nothing of ours is loaded beside it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing import Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from stock.client import Answer

__all__ = ("StockClient",)

START = 20.0


class StockClient:
    """Starts the process; owner thread only. Every answer is waited for no longer than its `timeout` and a grace."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._pipe, theirs = Pipe()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "stock.client", str(theirs.fileno())],
                stdin=subprocess.DEVNULL,
                env={**os.environ, **env, "PYTHONPATH": str(Path(__file__).parents[1])},
                pass_fds=[theirs.fileno()],
            )

    def call(
        self,
        name: str,
        *args: Any,
        kwargs: Mapping[str, Any] | None = None,
        timeout: float = 10.0,
        **options: Any,
    ) -> Answer:
        """`apply_async(...)`, then `get(timeout)`.

        Raises:
            AssertionError: no answer came although `get` had a timeout.
        """
        return self._ask(("call", name, args, dict(kwargs or {}), options, timeout), timeout)

    def send(self, name: str, *args: Any, **options: Any) -> str:
        """`apply_async(...)` only; returns the id."""
        return self._ask(("send", name, args, {}, options, 0.0), 0.0).task_id

    def run(self, workflow: str, *, timeout: float = 10.0) -> Answer:
        """What an expression of Celery's canvas sends, then `get(timeout)`: `"(s('step', (1,)) | s('step')).delay()"`."""
        return self._ask(("workflow", workflow, (), {}, {}, timeout), timeout)

    def get(self, task_id: str, timeout: float = 10.0) -> Answer:
        """`get(timeout)` of an id that was sent."""
        return self._ask(("get", task_id, (), {}, {}, timeout), timeout)

    def _ask(self, request: tuple[Any, ...], timeout: float) -> Answer:
        self._pipe.send(request)
        assert self._pipe.poll(timeout + START), f"the stock client hangs in {request[:2]}"
        answer = self._pipe.recv()
        assert isinstance(answer, Answer)
        return answer

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
