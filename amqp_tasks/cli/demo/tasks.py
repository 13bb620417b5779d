"""The demo's app: index a file, and find a word in one."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from amqp_tasks.app import App

__all__ = ("app", "find_word", "index_file")

app = App("demo", result_backend="rpc://")


@app.task(name="demo.index_file")
def index_file(path: str) -> dict[str, Any]:
    """Digest, line count, word count and longest line of a file."""
    content = Path(path).read_bytes()
    lines = content.splitlines()
    return {
        "sha256": hashlib.sha256(content).hexdigest(),
        "bytes": len(content),
        "lines": len(lines),
        "words": len(content.split()),
        "longest_line": max(map(len, lines), default=0),
    }


@app.task(name="demo.find_word")
def find_word(path: str, word: str) -> list[int]:
    """The numbers of the lines of a file that contain `word`."""
    lines = Path(path).read_bytes().splitlines()
    wanted = word.encode()
    return [number for number, line in enumerate(lines, start=1) if wanted in line]
