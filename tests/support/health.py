"""What `amqp-tasks health` says of a worker."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from amqp_tasks.cli import main

__all__ = ("Health",)


@dataclass(frozen=True, slots=True)
class Health:
    """Asks by a worker's health file."""

    path: Path

    def ask(self, *options: str) -> str:
        """What is wrong, as the command says it; empty when it ends with 0."""
        output = io.StringIO()
        with redirect_stdout(output):
            code = main(["health", str(self.path), *options])
        assert code in {0, 1}
        return output.getvalue() if code else ""

    @property
    def is_ready(self) -> bool:
        """It takes tasks."""
        return not self.ask()

    @property
    def is_live(self) -> bool:
        """It need not be restarted."""
        return not self.ask("--live")

    @property
    def report(self) -> dict[str, Any]:
        """All that the worker says."""
        report: dict[str, Any] = json.loads(self.path.read_bytes())
        return report
