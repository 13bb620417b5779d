"""Faults drawn by a seed, while three callers, two who wait for results, and three workers run.

`--seed` repeats a run; without it the short run has a fixed seed, and one is drawn and printed for the long ones.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support import PrivateNode, TcpProxy
from support.conservation import Outcome
from support.fault_run import FaultRun, fault_run
from support.fault_systems import OWN
from support.fault_table import Figures
from support.memory import watched_memory
from support.nemesis import HEARTBEAT, Nemesis
from support.scenarios import Site

SHORT_SEED = 11


@pytest.mark.slow
def test_promise_20_random_faults_keep_the_law(
    private_node: PrivateNode, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    seed = _seed(pytestconfig, SHORT_SEED)

    with _haunted(private_node, tmp_path) as (run, nemesis):
        nemesis.haunt(seed, seconds=10, with_outages=False)
        outcome = run.finish()

    _check(outcome)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_promise_20_random_faults_and_outages_keep_the_law(
    private_node: PrivateNode, tmp_path: Path, pytestconfig: pytest.Config, system: str, figures: Figures
) -> None:
    seed = _seed(pytestconfig)

    with _haunted(private_node, tmp_path, system=system) as (run, nemesis):
        nemesis.haunt(seed, seconds=120)
        outcome = run.finish()

    figures.add(f"random, seed {seed}", system, outcome)
    if system == OWN:
        _check(outcome)


@pytest.mark.long
@pytest.mark.soak
@pytest.mark.timeout(0)
def test_a_soak_keeps_the_law_and_its_memory(
    private_node: PrivateNode, tmp_path: Path, pytestconfig: pytest.Config
) -> None:
    """The processes of the spared worker and of the callers live from begin to end: they must not grow."""
    seed, seconds = _seed(pytestconfig), 60.0 * pytestconfig.getoption("--minutes", 10)

    with _haunted(private_node, tmp_path, interval=0.03) as (run, nemesis):
        with watched_memory(run.lasting_processes) as memory:
            strikes = nemesis.haunt(seed, seconds=seconds)
        outcome = run.finish(within=120)

    growth = memory.growth(at_least=seconds * 0.8)
    print(f"{len(strikes)} faults, {len(outcome.accepted)} calls")
    grown = [f"process {pid}: {each}" for pid, each in growth.items()]
    print(*grown, sep="\n")
    _check(outcome)
    assert len(growth) >= 6
    assert not any(each.is_too_much for each in growth.values()), "\n".join(grown)


_DRAWN = random.SystemRandom().randrange(10**6)
"""One for all of a run, so that each system meets the same faults."""


def _seed(config: pytest.Config, default: int | None = None) -> int:
    chosen = config.getoption("--seed", None) or default or _DRAWN
    print(f"--seed {chosen}")
    return int(chosen)


@contextmanager
def _haunted(
    node: PrivateNode, folder: Path, *, system: str = OWN, interval: float = 0.02
) -> Iterator[tuple[FaultRun, Nemesis]]:
    with (
        TcpProxy(node.url) as proxy,
        fault_run(
            proxy.url_for(),
            check_url=node.url,
            folder=folder,
            system=system,
            workers=3,
            callers=3,
            gets=(30.0, 0.5),
            interval=interval,
            env={
                "AMQP_TASKS_BROKER_HEARTBEAT": str(HEARTBEAT),
                "AMQP_TASKS_WORKER_STOP_TIMEOUT": "5",
            },
        ) as run,
    ):
        run.start()
        yield run, Nemesis(run, Site(node=node, proxy=proxy), tasks=30)


def _check(outcome: Outcome) -> None:
    print("raised:", outcome.errors, "no result:", outcome.no_values)
    assert set(outcome.dead.values()) <= {"crash-limit"}
    assert len(outcome.accepted) > 100
