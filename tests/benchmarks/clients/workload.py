"""The work that every system is given, and the stamps by which it is measured from outside."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from threading import Barrier, Thread

STAMP_EVERY = 250
"""One task in so many writes the time at which it ran: enough to see the ends, too few to be the work."""

_stamps = (
    os.open(os.environ["BENCH_STAMPS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    if "BENCH_STAMPS" in os.environ
    else -1
)


def noop(number: int, total: int) -> None:
    """Do nothing; the first, every 250th and the last 64 leave a stamp."""
    if number % STAMP_EVERY == 0 or number >= total - 64:
        os.write(_stamps, b"%d %.6f\n" % (number, time.time()))


def late(number: int, due: float) -> None:
    """Stamp how many seconds after `due` (since 1970) it runs."""
    os.write(_stamps, b"%d %.6f\n" % (number, time.time() - due))


def delays(count: int, first: float = 1.0, last: float = 12.0) -> Iterator[tuple[int, float, float]]:
    """Number, countdown and due time of so many tasks, due all over the seconds between; each counts from its own call."""
    for number in range(1, count + 1):
        countdown = first + number * 7919 % 1000 / 1000 * (last - first)
        yield number, countdown, time.time() + countdown


def echo(value: int) -> int:
    """Return what was given."""
    return value


def total(values: list[int]) -> int:
    """Add up what the members of a header returned."""
    return sum(values)


@dataclass(kw_only=True)
class Measured:
    """What one operation of one system took."""

    count: int
    seconds: float
    latencies: list[float] = field(default_factory=list)
    note: str = ""

    def to_json(self) -> dict[str, object]:
        """As a JSON object."""
        return asdict(self)


def timed(count: int, run: Callable[[], object]) -> Measured:
    """Run once and time it."""
    began = time.perf_counter()
    run()
    return Measured(count=count, seconds=time.perf_counter() - began)


def timed_warm(count: int, run: Callable[[int], object]) -> Measured:
    """Run a few first, so that connections and queues are there, then all of them, timed."""
    run(8)
    return timed(count, lambda: run(count))


def each_timed(count: int, call: Callable[[int], object]) -> Measured:
    """Call one after the other; keeps each latency."""
    latencies: list[float] = []
    began = time.perf_counter()
    for number in range(count):
        start = time.perf_counter()
        call(number)
        latencies.append(time.perf_counter() - start)
    return Measured(count=count, seconds=time.perf_counter() - began, latencies=latencies)


def threaded(count: int, threads: int, call: Callable[[int], object]) -> Measured:
    """Share `count` calls among threads that start together."""
    barrier = Barrier(threads + 1)
    share = count // threads
    errors: list[BaseException] = []

    def body() -> None:
        barrier.wait()
        try:
            for number in range(share):
                call(number)
        except BaseException as exc:  # reported below; a thread must not die silently
            errors.append(exc)

    workers = [Thread(target=body) for _ in range(threads)]
    for worker in workers:
        worker.start()
    barrier.wait()
    began = time.perf_counter()
    for worker in workers:
        worker.join()
    if errors:
        raise errors[0]
    return Measured(count=share * threads, seconds=time.perf_counter() - began)


def main(operations: dict[str, Callable[[int], Measured]], argv: Sequence[str]) -> None:
    """`python -m benchmarks.clients.X OPERATION COUNT`: print one JSON line and leave at once."""
    import json
    import sys

    measured = operations[argv[1]](int(argv[2]))
    sys.stdout.write("MEASURED " + json.dumps(measured.to_json()) + "\n")
    sys.stdout.flush()
    os._exit(0)  # the peers' own closing at exit is not what is measured, and some hang in it
