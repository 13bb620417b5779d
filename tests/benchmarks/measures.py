"""What is measured: one function a row, each returning one number for one system."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from benchmarks.clients.workload import STAMP_EVERY

if TYPE_CHECKING:
    from benchmarks.systems import Bench, System

SETTLE_SECONDS = 2.0


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One row of the table."""

    name: str
    unit: str
    higher_is_better: bool
    run: Callable[[Bench, System], float]


def _module(system: System) -> str:
    return f"benchmarks.clients.{system.client}"


def drain(bench: Bench, system: System, count: int = 20_000) -> float:
    """Tasks/s of a worker with four processes on a full queue, from its first task to its last."""
    environment = bench.fresh(system)
    bench.operate(_module(system), "fill", count, environment | {"BENCH_CONFIRM": "0"})
    expected = len({n for n in range(count) if n % STAMP_EVERY == 0 or n >= count - 64})
    with bench.worker(system, environment):
        stamps = bench.wait_for_stamp(environment, expected)
    times = [at for _, at in stamps]
    return count / (max(times) - min(times))


def client_rate(operation: str, count: int) -> Callable[[Bench, System], float]:
    """Operations/s of a client with nobody at the other end."""

    def run(bench: Bench, system: System) -> float:
        measured = bench.operate(_module(system), operation, count, bench.fresh(system))
        return float(measured["count"] / measured["seconds"])

    return run


def served_rate(operation: str, count: int) -> Callable[[Bench, System], float]:
    """Operations/s of a client whose tasks a worker serves."""

    def run(bench: Bench, system: System) -> float:
        measured = _served(bench, system, operation, count)
        return float(measured["count"] / measured["seconds"])

    return run


def served_seconds(operation: str, count: int) -> Callable[[Bench, System], float]:
    """Seconds for all of them."""

    def run(bench: Bench, system: System) -> float:
        return float(_served(bench, system, operation, count)["seconds"])

    return run


def served_latency(count: int) -> Callable[[Bench, System], float]:
    """Median milliseconds of a call and its result, one after the other."""

    def run(bench: Bench, system: System) -> float:
        latencies: list[float] = _served(bench, system, "latency", count)["latencies"]
        return 1000 * statistics.median(latencies[len(latencies) // 10 :])

    return run


def _served(bench: Bench, system: System, operation: str, count: int) -> dict[str, Any]:
    environment = bench.fresh(system)
    with bench.worker(system, environment):
        bench.operate(_module(system), "latency", 20, environment)  # until it serves
        return bench.operate(_module(system), operation, count, environment)


def lateness(bench: Bench, system: System, count: int = 20_000) -> float:
    """Milliseconds by which 99 of 100 delayed tasks at most are late; all due within twelve seconds of their calls."""
    environment = bench.fresh(system)
    with bench.worker(system, environment):
        bench.operate(_module(system), "fill", 1, environment)
        bench.wait_for_stamp(environment, 1)  # until it serves
        bench.operate(_module(system), "delayed", count, environment)
        stamps = bench.wait_for_stamp(environment, count + 1)
    late = sorted(seconds for number, seconds in stamps if number)
    return 1000 * late[int(len(late) * 0.99)]


def start_up(bench: Bench, system: System) -> float:
    """Seconds from the worker's exec to its first task; a task waits in the queue."""
    environment = bench.fresh(system)
    bench.operate(_module(system), "fill", 1, environment)
    began = time.time()
    with bench.worker(system, environment):
        stamps = bench.wait_for_stamp(environment, 1)
    return stamps[0][1] - began


def idle_memory(bench: Bench, system: System) -> float:
    """PSS in MiB of a worker with four processes that has run a few tasks and waits."""
    from benchmarks.systems import memory_of_group

    environment = bench.fresh(system)
    with bench.worker(system, environment) as process:
        bench.operate(_module(system), "latency", 50, environment)
        time.sleep(SETTLE_SECONDS)  # idle is the absence of events: there is none to wait for
        return memory_of_group(process.pid)


def import_time(bench: Bench, system: System) -> float:
    """Milliseconds to import the package and define an app, less a bare interpreter."""
    define = {
        "own_client": "from amqp_tasks import App; App('x', broker='amqp://localhost')",
        "celery_client": "from celery import Celery; Celery('x', broker='amqp://localhost')",
        "dramatiq_client": "import dramatiq; from dramatiq.brokers.rabbitmq import RabbitmqBroker; "
        "dramatiq.set_broker(RabbitmqBroker(url='amqp://localhost'))",
    }[system.client]
    return 1000 * (_python(define) - _python("pass"))


def _python(code: str) -> float:
    spent: list[float] = []
    for _ in range(5):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True)
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


MEASURES: dict[str, Measure] = {
    "drain": Measure(
        name="drain 20k no-op tasks, 4 processes", unit="tasks/s", higher_is_better=True, run=drain
    ),
    "publish": Measure(
        name="delay(), one thread", unit="calls/s", higher_is_better=True, run=client_rate("publish", 1000)
    ),
    "bulk": Measure(
        name="bulk publish", unit="messages/s", higher_is_better=True, run=client_rate("bulk", 10_000)
    ),
    "delayed": Measure(
        name="bulk publish with a countdown",
        unit="messages/s",
        higher_is_better=True,
        run=client_rate("delayed", 10_000),
    ),
    "lateness": Measure(
        name="lateness of 20,000 tasks due within 12 s, p99", unit="ms", higher_is_better=False, run=lateness
    ),
    "collect": Measure(
        name="5,000 tasks with results collected",
        unit="tasks/s",
        higher_is_better=True,
        run=served_rate("collect", 5000),
    ),
    "latency": Measure(name="delay().get(), p50", unit="ms", higher_is_better=False, run=served_latency(500)),
    "threads": Measure(
        name="16 threads calling", unit="calls/s", higher_is_better=True, run=served_rate("threads", 3200)
    ),
    "fanout": Measure(
        name="fan-out 1,000 and collect", unit="s", higher_is_better=False, run=served_seconds("fanout", 1000)
    ),
    "chain": Measure(name="chain of 100", unit="s", higher_is_better=False, run=served_seconds("chain", 100)),
    "group": Measure(
        name="group of 1,000 with results",
        unit="s",
        higher_is_better=False,
        run=served_seconds("group", 1000),
    ),
    "chord": Measure(
        name="chord of 1,000", unit="s", higher_is_better=False, run=served_seconds("chord", 1000)
    ),
    "chord10k": Measure(
        name="chord of 10,000", unit="s", higher_is_better=False, run=served_seconds("chord", 10_000)
    ),
    "startup": Measure(
        name="start to first task, 4 processes", unit="s", higher_is_better=False, run=start_up
    ),
    "memory": Measure(
        name="idle memory, 4 processes (PSS)", unit="MiB", higher_is_better=False, run=idle_memory
    ),
    "import": Measure(name="import and define an app", unit="ms", higher_is_better=False, run=import_time),
}
