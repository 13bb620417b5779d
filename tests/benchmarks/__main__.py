"""Compare amqp-tasks with its peers and with the broker's own ceiling: same broker, same run, alternating.

    python -m benchmarks [--url URL] [--redis URL] [--repeat 3] [--only drain,latency] [--markdown FILE]

Prints medians, spread and ratios. Run from the folder `tests`; `make bench` does it.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import systems
from benchmarks.measures import MEASURES, Measure
from benchmarks.systems import Bench, System

DEFAULT_URL = "amqp://guest:guest@127.0.0.1:5672//"
SIMPLE = ("drain", "publish", "bulk", "delayed", "lateness", "startup")
"""Measures that need no result store of a peer."""
WORKFLOWS = ("chain", "group", "chord", "chord10k")


@dataclass(kw_only=True)
class Row:
    """All repetitions of one measure with one system."""

    measure: Measure
    system: System
    values: list[float] = field(default_factory=list)

    @property
    def median(self) -> float:
        """The median of the repetitions."""
        return statistics.median(self.values)

    def text(self, own: float | None) -> str:
        """A line of the table."""
        spread = f"{min(self.values):,.4g} … {max(self.values):,.4g}"
        ratio = ""
        if own is not None:
            factor = own / self.median if self.measure.higher_is_better else self.median / own
            ratio = f"{factor:.2f}"
        name = f"{self.system.name} ({self.system.queue_type})"
        return f"| {name} | {self.median:,.4g} {self.measure.unit} | {spread} | {ratio} |"


def contestants(measure: str, redis: str) -> list[System]:
    """Who takes part in a measure; the first is the one that ratios are of."""
    own = systems.own("quorum")
    celery = systems.celery("quorum")
    dramatiq = systems.dramatiq(redis="" if measure in SIMPLE else redis)
    chosen = {
        "drain": [
            own,
            systems.own("classic"),
            celery,
            systems.celery("classic"),
            dramatiq,
            systems.dramatiq(name="Dramatiq, 1 thread, prefetch 256", threads=1, prefetch=256),
            systems.dramatiq("quorum", name="Dramatiq, 1 thread, prefetch 256", threads=1, prefetch=256),
        ],
        "publish": [own, systems.own("classic"), celery, dramatiq, systems.dramatiq("quorum")],
        "latency": [
            own,
            systems.own("classic"),
            systems.own(
                "classic", name="amqp-tasks, confirms not awaited", environment={"BENCH_CONFIRM": "0"}
            ),
            celery,
            systems.dramatiq(name="Dramatiq, no confirms", redis=redis),
        ],
    }
    if measure in WORKFLOWS:
        dramatiq.environment["BENCH_WORKFLOWS"] = "1"
        with_redis = systems.celery("quorum", name="Celery prefork, results in Redis", redis=redis)
        over_rpc = [] if "chord" in measure else [celery]  # without a store it has no chords
        return [own, systems.own("classic"), *over_rpc, with_redis, dramatiq]
    if measure == "latency":
        unconfirmed = chosen["latency"][-1]
        unconfirmed.environment["BENCH_CONFIRM"] = "0"
    return chosen.get(measure, [own, systems.own("classic"), celery, dramatiq])


def ceilings(bench: Bench, repeat: int) -> list[str]:
    """What plain sockets reach on this broker."""
    lines: list[str] = []
    for operation, count, unit in (
        ("publish", 20_000, "/s"),
        ("consume", 20_000, "/s"),
        ("both", 20_000, "/s"),
        ("latency", 300, "ms"),
        ("confirm", 1000, "ms"),
        ("call", 500, "ms"),
        ("loose-call", 500, "ms"),
    ):
        for queue_type in ("quorum", "classic"):
            values: list[float] = []
            for _ in range(repeat):
                environment = bench.fresh(System(name="raw", client="", worker=(), queue_type=queue_type))
                measured = bench.operate("benchmarks.raw", operation, count, environment)
                rate = measured["count"] / measured["seconds"]
                values.append(1000 * statistics.median(measured["latencies"]) if unit == "ms" else rate)
            spread = f"{min(values):,.4g} … {max(values):,.4g}"
            lines.append(
                f"| plain socket, {operation} ({queue_type}) | {statistics.median(values):,.4g} {unit} | {spread} | |"
            )
    return lines


def compare(bench: Bench, key: str, repeat: int, redis: str) -> list[str]:
    """One measure with all its systems, the repetitions alternating."""
    measure = MEASURES[key]
    rows = [Row(measure=measure, system=system) for system in contestants(key, redis)]
    for round_number in range(repeat):
        for row in rows:
            row.values.append(measure.run(bench, row.system))
            sys.stderr.write(
                f"{key} {round_number + 1}/{repeat} {row.system.name} ({row.system.queue_type}): {row.values[-1]:,.4g}\n"
            )
    own = rows[0].median
    return [row.text(own if number else None) for number, row in enumerate(rows)]


def measures(names: str) -> list[str]:
    """What `--only` names.

    Raises:
        ArgumentTypeError: something is no measure.
    """
    known = ["raw", *MEASURES]
    chosen = names.split(",")
    for name in chosen:
        if name not in known:
            raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
    return chosen


def arguments() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(
        prog="benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default=os.environ.get("AMQP_TASKS_BENCH_URL", DEFAULT_URL))
    parser.add_argument(
        "--redis", default=os.environ.get("AMQP_TASKS_BENCH_REDIS", "redis://127.0.0.1:6379/9")
    )
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--only", type=measures, default=["raw", *MEASURES], metavar="NAME[,NAME...]")
    parser.add_argument("--markdown", type=Path)
    return parser.parse_args()


def main() -> None:
    """Run what was asked for and print the table."""
    asked = arguments()
    # An installed package has its bytecode: ours, which is run from its source tree, may write it for the first run.
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    lines = [
        (
            f"{platform.python_implementation()} {platform.python_version()}, {os.cpu_count()} cores; medians of {asked.repeat}"
            " alternating repetitions; the last column is amqp-tasks (first line of each table) against that line, above 1 is"
            " better for amqp-tasks."
        ),
    ]
    with tempfile.TemporaryDirectory(prefix="amqp-tasks-bench-") as scratch:
        bench = Bench(url=asked.url, scratch=Path(scratch))
        for key in asked.only:
            title = "the broker's own ceiling" if key == "raw" else MEASURES[key].name
            lines += ["", f"### {title}", "", "| system | median | spread | ratio |", "|---|---|---|---|"]
            lines += (
                ceilings(bench, asked.repeat)
                if key == "raw"
                else compare(bench, key, asked.repeat, asked.redis)
            )
    text = "\n".join(lines) + "\n"
    sys.stdout.write(text)
    if asked.markdown:
        asked.markdown.write_text(text)


if __name__ == "__main__":
    main()
