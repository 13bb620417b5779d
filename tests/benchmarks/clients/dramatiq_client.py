"""Dramatiq: results in Redis, only the middleware that the work needs; quorum queues by an argument that it has no setting for."""

# mypy: allow-untyped-calls
# Dramatiq is annotated in parts.

from __future__ import annotations

import os
import sys
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.middleware import GroupCallbacks, Pipelines
from dramatiq.rate_limits.backends import RedisBackend as RedisCounters
from dramatiq.results import Results
from dramatiq.results.backends import RedisBackend

from benchmarks.clients import workload

QUEUE = os.environ["BENCH_QUEUE"]
URL = os.environ["BENCH_URL"]
URL = URL[:-1] + "%2F" if URL.endswith("//") else URL
"""pika reads an empty path as an empty virtual host, so the default one is spelt out."""

REDIS = os.environ.get("BENCH_REDIS", "") + "?socket_timeout=150"
"""A wait for a result is one blocking read, which the client would break off after five seconds."""


class Broker(RabbitmqBroker):
    """The broker, with queues of the type that is measured."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        arguments: dict[str, Any] = super()._build_queue_arguments(queue_name)
        return {**arguments, "x-queue-type": os.environ["BENCH_QUEUE_TYPE"]}


broker = Broker(
    url=URL,
    confirm_delivery=os.environ.get("BENCH_CONFIRM", "1") == "1",
    middleware=[],
)
if "BENCH_REDIS" in os.environ:
    broker.add_middleware(Results(backend=RedisBackend(url=REDIS)))
    if "BENCH_WORKFLOWS" in os.environ:
        broker.add_middleware(Pipelines())
        broker.add_middleware(GroupCallbacks(RedisCounters(url=REDIS)))
dramatiq.set_broker(broker)
WITH_RESULTS: dict[str, Any] = {"store_results": True} if "BENCH_REDIS" in os.environ else {}

noop = dramatiq.actor(actor_name="noop", queue_name=QUEUE)(workload.noop)
late = dramatiq.actor(actor_name="late", queue_name=QUEUE)(workload.late)
echo = dramatiq.actor(actor_name="echo", queue_name=QUEUE, **WITH_RESULTS)(workload.echo)
ended = dramatiq.actor(actor_name="ended", queue_name=QUEUE, **WITH_RESULTS)(lambda: True)


def _call(number: int) -> object:
    return echo.send(number).get_result(block=True, timeout=30_000)


def _delayed(count: int) -> None:
    for number, countdown, due in workload.delays(count):
        late.send_with_options(args=(number, due), delay=round(1000 * countdown))


def _fan_out(count: int) -> None:
    messages = [echo.send(i) for i in range(count)]
    for message in messages:
        message.get_result(block=True, timeout=60_000)


def _chain(count: int) -> object:
    messages = [echo.message(1), *(echo.message_with_options() for _ in range(count - 1))]
    return dramatiq.pipeline(messages).run().get_result(block=True, timeout=120_000)


def _group(count: int) -> object:
    sent = dramatiq.group(echo.message(i) for i in range(count)).run()
    return list(sent.get_results(block=True, timeout=120_000))


def _chord(count: int) -> object:
    body = ended.message()  # it is not given the values: nothing here hands them over
    members = dramatiq.group(echo.message(i) for i in range(count))
    members.add_completion_callback(body)
    members.run()
    return body.get_result(block=True, timeout=120_000)


OPERATIONS = {
    "publish": lambda n: (
        noop.send(1, 10**9),
        workload.timed(n, lambda: [noop.send(1, 10**9) for _ in range(n)]),
    )[1],
    "bulk": lambda n: (
        noop.send(1, 10**9),
        workload.timed(n, lambda: [noop.send(1, 10**9) for _ in range(n)]),
    )[1],
    "delayed": lambda n: (noop.send(1, 10**9), workload.timed(n, lambda: _delayed(n)))[1],
    "fill": lambda n: workload.timed(n, lambda: [noop.send(i, n) for i in range(n)]),
    "collect": lambda n: (_call(1), workload.timed(n, lambda: _fan_out(n)))[1],
    "latency": lambda n: (_call(1), workload.each_timed(n, _call))[1],
    "threads": lambda n: (_call(1), workload.threaded(n, 16, _call))[1],
    "fanout": lambda n: (_call(1), workload.timed(n, lambda: _fan_out(n)))[1],
    "chain": lambda n: workload.timed_warm(n, _chain),
    "group": lambda n: workload.timed_warm(n, _group),
    "chord": lambda n: workload.timed_warm(n, _chord),
}

if __name__ == "__main__":
    workload.main(OPERATIONS, sys.argv)
