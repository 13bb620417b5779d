"""Dramatiq: classic queues (it has no others), results in Redis, only the middleware that the work needs."""

from __future__ import annotations

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.clients import workload

QUEUE = os.environ["BENCH_QUEUE"]
URL = os.environ["BENCH_URL"]
URL = URL[:-1] + "%2F" if URL.endswith("//") else URL
"""pika reads an empty path as an empty virtual host, so the default one is spelt out."""

broker = RabbitmqBroker(
    url=URL,
    confirm_delivery=os.environ.get("BENCH_CONFIRM", "1") == "1",
    middleware=[],
)
if "BENCH_REDIS" in os.environ:
    broker.add_middleware(Results(backend=RedisBackend(url=os.environ["BENCH_REDIS"])))  # type: ignore[no-untyped-call]  # it has no annotations
dramatiq.set_broker(broker)
WITH_RESULTS: dict[str, Any] = {"store_results": True} if "BENCH_REDIS" in os.environ else {}

noop = dramatiq.actor(actor_name="noop", queue_name=QUEUE)(workload.noop)
echo = dramatiq.actor(actor_name="echo", queue_name=QUEUE, **WITH_RESULTS)(workload.echo)


def _call(number: int) -> object:
    return echo.send(number).get_result(block=True, timeout=30_000)


def _fan_out(count: int) -> None:
    messages = [echo.send(i) for i in range(count)]
    for message in messages:
        message.get_result(block=True, timeout=60_000)


OPERATIONS = {
    "publish": lambda n: (
        noop.send(1, 10**9),
        workload.timed(n, lambda: [noop.send(1, 10**9) for _ in range(n)]),
    )[1],
    "bulk": lambda n: (
        noop.send(1, 10**9),
        workload.timed(n, lambda: [noop.send(1, 10**9) for _ in range(n)]),
    )[1],
    "fill": lambda n: workload.timed(n, lambda: [noop.send(i, n) for i in range(n)]),
    "collect": lambda n: (_call(1), workload.timed(n, lambda: _fan_out(n)))[1],
    "latency": lambda n: (_call(1), workload.each_timed(n, _call))[1],
    "threads": lambda n: (_call(1), workload.threaded(n, 16, _call))[1],
    "fanout": lambda n: (_call(1), workload.timed(n, lambda: _fan_out(n)))[1],
}

if __name__ == "__main__":
    workload.main(OPERATIONS, sys.argv)
