"""Celery in its best reasonable settings: confirms on, late acks, no gossip, an own prefetch."""

from __future__ import annotations

import os
import sys

from celery import Celery, chain, chord, group  # type: ignore[import-untyped,unused-ignore]

from benchmarks.clients import workload

QUEUE = os.environ["BENCH_QUEUE"]
QUORUM = os.environ["BENCH_QUEUE_TYPE"] == "quorum"

app = Celery(
    "bench",
    broker=os.environ["BENCH_URL"].replace("amqp://", "pyamqp://"),
    backend=os.environ.get("BENCH_CELERY_BACKEND", "rpc://"),
)
app.conf.update(
    task_default_queue=QUEUE,
    task_default_queue_type="quorum" if QUORUM else "classic",
    task_default_exchange_type="direct",
    broker_transport_options={"confirm_publish": os.environ.get("BENCH_CONFIRM", "1") == "1"},
    broker_native_delayed_delivery_queue_type="classic",
    task_acks_late=True,
    worker_prefetch_multiplier=int(os.environ.get("BENCH_PREFETCH", "64")),
    worker_send_task_events=False,
    worker_enable_remote_control=False,
    result_expires=600,
)
noop = app.task(name="bench.noop", ignore_result=True)(workload.noop)
late = app.task(name="bench.late", ignore_result=True)(workload.late)
echo = app.task(name="bench.echo")(workload.echo)
total = app.task(name="bench.total")(workload.total)


def _bulk(count: int) -> None:
    with app.producer_or_acquire() as producer:
        for number in range(count):
            noop.apply_async((number, count), producer=producer)


def _delayed(count: int) -> None:
    with app.producer_or_acquire() as producer:
        for number, countdown, due in workload.delays(count):
            late.apply_async((number, due), countdown=countdown, producer=producer)


def _chain(count: int) -> object:
    return chain(echo.s(1), *(echo.s() for _ in range(count - 1)))().get(timeout=120)


def _group(count: int) -> object:
    return group(echo.s(i) for i in range(count))().get(timeout=120)


def _chord(count: int) -> object:
    return chord([echo.s(i) for i in range(count)], total.s())().get(timeout=120)


OPERATIONS = {
    "publish": lambda n: (
        noop.delay(1, 10**9),
        workload.timed(n, lambda: [noop.delay(1, 10**9) for _ in range(n)]),
    )[1],
    "bulk": lambda n: (noop.delay(1, 10**9), workload.timed(n, lambda: _bulk(n)))[1],
    "delayed": lambda n: (noop.delay(1, 10**9), workload.timed(n, lambda: _delayed(n)))[1],
    "fill": lambda n: workload.timed(n, lambda: _bulk(n)),
    "collect": lambda n: (
        echo.delay(1).get(timeout=30),
        workload.timed(n, lambda: group(echo.s(i) for i in range(n))().get(timeout=120)),
    )[1],
    "latency": lambda n: (
        echo.delay(1).get(timeout=30),
        workload.each_timed(n, lambda i: echo.delay(i).get(timeout=30)),
    )[1],
    "threads": lambda n: (
        echo.delay(1).get(timeout=30),
        workload.threaded(n, 16, lambda i: echo.delay(i).get(timeout=60)),
    )[1],
    "fanout": lambda n: (
        echo.delay(1).get(timeout=30),
        workload.timed(n, lambda: [r.get(timeout=60) for r in [echo.delay(i) for i in range(n)]]),
    )[1],
    "chain": lambda n: workload.timed_warm(n, _chain),
    "group": lambda n: workload.timed_warm(n, _group),
    "chord": lambda n: workload.timed_warm(n, _chord),
}

if __name__ == "__main__":
    workload.main(OPERATIONS, sys.argv)
