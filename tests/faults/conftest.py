"""Fixtures of the fault tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import Node, PrivateNode, RawClient, Vhost
from support.conservation import Outcome
from support.fault_systems import OWN, SYSTEMS
from support.fault_table import Figures
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
    parser.addoption("--minutes", type=float, default=10.0, help="length of the soak")
    parser.addoption("--figures", type=Path, help="add the table of figures to this file")


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


@pytest.fixture
def figures(request: pytest.FixtureRequest, _breakable_node: Node) -> Figures:
    """The table to which a long run adds its line."""
    version = ".".join(map(str, _breakable_node.management.version()))
    return request.config.stash.setdefault(FIGURES, Figures(version))


@pytest.fixture
def client(vhost: Vhost) -> Iterator[WorkerClient]:
    """Calls tasks in the test's virtual host."""
    with WorkerClient(vhost.url) as made:
        yield made


@pytest.fixture
def private_client(private_node: PrivateNode) -> Iterator[WorkerClient]:
    """Calls tasks on the node that the test breaks; gives up after two seconds."""
    with WorkerClient(private_node.url, task_publish_timeout=2.0) as made:
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
