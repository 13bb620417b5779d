"""Messages as anybody with access to the broker can make them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

__all__ = ("JSON", "MAX_MESSAGE", "good_headers", "peak_kib")

MAX_MESSAGE = 2 * 1024 * 1024
"""`max_message_bytes` of the worker under test."""
JSON: dict[str, Any] = {"content_type": "application/json", "content_encoding": "utf-8"}


def good_headers(task_id: str = "some-id", task: str = "count", **more: Any) -> dict[str, Any]:
    """The least that a task message needs."""
    return {"task": task, "id": task_id} | more


def peak_kib(pid: int) -> int:
    """The highest resident memory that a process has had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
