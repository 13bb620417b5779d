"""A WSGI application for a server that loads it, connections and all, before it forks its workers."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from support.worker_client import WorkerClient

client = WorkerClient(os.environ["AMQP_TASKS_BROKER_URL"])
client.act("preloaded").get(timeout=20)


def application(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    """Call the task whose key is the path, wait for its result, and answer with it and this process's id."""
    value = client.act(environ["PATH_INFO"].lstrip("/")).get(timeout=20)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([value, os.getpid()]).encode()]
