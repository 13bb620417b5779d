"""The tasks of `worker_app` for a worker that has a queue of its own at a fanout exchange."""

from __future__ import annotations

import os

from amqp_routing import Binding, Exchange, ExchangeType, Queue
from support.worker_app import QUEUE, app

__all__ = ("app",)

_own = f"all.{os.environ['NODE']}"
app.conf.task_queues = [Queue(QUEUE), Exchange("all", ExchangeType.FANOUT), Queue(_own), Binding("all", _own)]
