"""Fixtures of the fault tests."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import Ledger, Node, PrivateNode, RawClient, Vhost
from support.clusters import ClusterVhost
from support.conservation import Outcome
from support.fault_systems import OWN, SYSTEMS
from support.fault_table import Figures
from support.law import Law, Place
from support.memory import SHORTEST
from support.observing import LAW, observe
from support.private import private_to_one_test
from support.scenarios import run_scenario
from support.worker_client import WorkerClient

FIGURES = pytest.StashKey[Figures]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Options of the long runs, see `make faults`."""
    parser.addoption(
        "--system", default=OWN, help=f"systems to run, with commas between: {', '.join(SYSTEMS)}"
    )
    parser.addoption("--seed", type=int, help="of the random runs; default: a new one")
    parser.addoption(
        "--minutes", type=_minutes, default=10.0, help=f"length of the soak, at least {SHORTEST / 60:g}"
    )
    parser.addoption("--figures", type=Path, help="add the table of figures to this file")


def _minutes(text: str) -> float:
    minutes = float(text)
    if not minutes * 60 >= SHORTEST:
        raise ArgumentTypeError(
            f"{text} is too short for a verdict on memory, which is judged when caches are full: at least {SHORTEST / 60:g}"
        )
    return minutes


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what takes a `system` with each that was asked for."""
    if "system" in metafunc.fixturenames:
        asked = str(metafunc.config.getoption("--system", OWN)).split(",")
        unknown = set(asked) - set(SYSTEMS)
        if unknown:
            raise pytest.UsageError(f"--system {', '.join(unknown)}: there are {', '.join(SYSTEMS)}")
        metafunc.parametrize("system", asked)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the table of what the long runs saw."""
    figures = config.stash.get(FIGURES, None)
    if figures is None:
        return
    terminalreporter.section("figures")
    terminalreporter.write(figures.text())
    file = config.getoption("--figures", None)
    if file:
        with file.open("a") as page:
            page.write(figures.text())


@pytest.fixture(scope="module", autouse=True)
def _law(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Law]:
    """Whatever the tests of a module start or call tells of its tasks, module-wide runs included."""
    ledger = Ledger(tmp_path_factory.mktemp("law") / "law")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(LAW, str(ledger.path))
        end = observe()
        yield Law(ledger)
        end()


@pytest.fixture(autouse=True)
def law(request: pytest.FixtureRequest, _law: Law) -> Iterator[None]:
    """Promise 20, at the end of every test here: what was accepted is done, dead-lettered, queued or revoked, and nothing else is anywhere.

    It is set up before the workers and callers of a test, and so judges when they are gone; the broker is brought back for that. What
    other systems do is not told to it; their runs keep books of their own.
    """
    if "system" in request.fixturenames and request.getfixturevalue("system") != OWN:
        yield
        _law.forget()
        return
    place = next((find(request) for name, find in _PLACES if name in request.fixturenames), None)
    yield
    loses = {task_id for mark in request.node.iter_markers("loses") for task_id in mark.args}
    _law.judge(place() if place is not None else None, loses=loses)


def _in_vhost(request: pytest.FixtureRequest) -> Callable[[], Place]:
    vhost: Vhost = request.getfixturevalue("vhost")
    return lambda: Place(url=vhost.url, management=vhost.management, vhost=vhost.name)


def _in_private_node(request: pytest.FixtureRequest) -> Callable[[], Place]:
    node: PrivateNode = request.getfixturevalue("private_node")

    def healed() -> Place:
        node.node.heal()
        return Place(url=node.url, management=node.management, vhost=node.vhost.name)

    return healed


def _in_cluster(request: pytest.FixtureRequest) -> Callable[[], Place]:
    own: ClusterVhost = request.getfixturevalue("own")

    def healed() -> Place:
        own.cluster.heal()
        url = own.url_of(own.cluster.nodes[0])
        return Place(url=url, management=own.cluster.management, vhost=own.name)

    return healed


_PLACES: tuple[tuple[str, Callable[[pytest.FixtureRequest], Callable[[], Place]]], ...] = (
    ("vhost", _in_vhost),
    ("private_node", _in_private_node),
    ("own", _in_cluster),
)


@pytest.fixture
def figures(request: pytest.FixtureRequest, _breakable_node: Node) -> Figures:
    """The table to which a long run adds its line."""
    version = ".".join(map(str, _breakable_node.management.version()))
    return request.config.stash.setdefault(FIGURES, Figures(version))


@pytest.fixture
def private_client(private_node: PrivateNode) -> Iterator[WorkerClient]:
    """Calls tasks on the node that the test breaks, which may be slow to come back; give calls that are to fail a `timeout`."""
    with WorkerClient(private_node.url) as made:
        yield made


@pytest.fixture
def private_raw(private_node: PrivateNode) -> Iterator[RawClient]:
    """An independent client of the node that the test breaks; made before it is broken."""
    with RawClient(private_node.url) as made:
        yield made


@pytest.fixture(scope="module")
def short_run(_breakable_node: Node, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Outcome]:
    """Runs a scenario in its short form, once in a module: several tests look at the same outcome."""
    seen: dict[str, Outcome] = {}

    def run(name: str) -> Outcome:
        if name not in seen:
            with private_to_one_test(_breakable_node) as node:
                seen[name] = run_scenario(name, node, folder=tmp_path_factory.mktemp(name))
        return seen[name]

    return run
