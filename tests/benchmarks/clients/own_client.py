"""amqp-tasks as it comes: quorum queue, confirms, late acks, results over RPC."""

from __future__ import annotations

import os
import sys

from amqp_tasks import App, chain, chord, group
from benchmarks.clients import workload

QUEUE = os.environ["BENCH_QUEUE"]
CONFIRM = os.environ.get("BENCH_CONFIRM", "1") == "1"

app = App(
    "bench",
    broker=os.environ["BENCH_URL"],
    backend="rpc://",
    task_default_queue=QUEUE,
    task_default_queue_type=os.environ["BENCH_QUEUE_TYPE"],
    # Like for like with a peer that waits for no confirm and keeps its results in memory.
    result_persistent=CONFIRM,
)
noop = app.task(name="bench.noop", ignore_result=True)(workload.noop)
late = app.task(name="bench.late", ignore_result=True)(workload.late)
echo = app.task(name="bench.echo")(workload.echo)
total = app.task(name="bench.total")(workload.total)


def _delayed(count: int) -> None:
    app.send_many((late, (i, due), {}, {"countdown": wait}) for i, wait, due in workload.delays(count))


def _call(number: int) -> object:
    return echo.apply_async((number,), confirm=CONFIRM).get(timeout=30)


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
    "bulk": lambda n: (
        noop.delay(1, 10**9),
        workload.timed(n, lambda: noop.map_async((1, 10**9) for _ in range(n))),
    )[1],
    "delayed": lambda n: (noop.delay(1, 10**9), workload.timed(n, lambda: _delayed(n)))[1],
    "fill": lambda n: workload.timed(n, lambda: noop.map_async((i, n) for i in range(n))),
    "collect": lambda n: (
        _call(1),
        workload.timed(n, lambda: echo.map_async((i,) for i in range(n)).get(timeout=120)),
    )[1],
    "latency": lambda n: (_call(1), workload.each_timed(n, _call))[1],
    "threads": lambda n: (_call(1), workload.threaded(n, 16, _call))[1],
    "fanout": lambda n: (
        _call(1),
        workload.timed(n, lambda: echo.map_async((i,) for i in range(n)).get(timeout=60)),
    )[1],
    "chain": lambda n: workload.timed_warm(n, _chain),
    "group": lambda n: workload.timed_warm(n, _group),
    "chord": lambda n: workload.timed_warm(n, _chord),
}

if __name__ == "__main__":
    workload.main(OPERATIONS, sys.argv)
