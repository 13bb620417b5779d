"""The sample app of compose/: one task for somebody who waits, one for nobody in particular."""

from __future__ import annotations

import hashlib

from amqp_tasks import App

app = App(
    "sample",
    task_routes={"sample.greet": "hipri", "sample.digest": "lopri"},
    result_backend="rpc://",
)


@app.task
def greet(name: str) -> str:
    """Say hello."""
    return f"Hello, {name}!"


@app.task
def digest(text: str, rounds: int = 1000) -> str:
    """Hash `text` again and again, to give the CPU something to do."""
    data = text.encode()
    for _ in range(rounds):
        data = hashlib.sha256(data).digest()
    return data.hex()
