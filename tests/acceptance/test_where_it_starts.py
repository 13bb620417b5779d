"""Where a command is started: what its modules and tasks are called, and how it is interrupted."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from acceptance.project import COMMAND, Project
from amqp_tasks.cli import ExitCode
from support import RawClient, Vhost, WorkerProcesses, eventually

APP = "from amqp_tasks import App\n\napp = App('shop', include=[{include}])\n"
TASK = "from {celery} import app\n\n\n@app.task\ndef {name}(x: int) -> int:\n    return x\n"


@pytest.fixture
def shop(bare_project: Project, vhost: Vhost) -> Path:
    """A package `shop` with an app in `celery.py` and tasks in two modules of a sub-package."""
    bare_project.environment["AMQP_TASKS_BROKER_URL"] = vhost.url
    root = bare_project.path / "shop"
    (root / "tasks").mkdir(parents=True)
    (root / "__init__.py").touch()
    (root / "tasks" / "__init__.py").touch()
    return root


@pytest.mark.parametrize(
    ("inside", "app", "package"), [(False, "shop", "shop."), (True, "celery", "")], ids=["above", "inside"]
)
def test_names_of_modules_and_tasks_count_from_the_directory_of_the_start(
    bare_project: Project,
    shop: Path,
    worker_process: WorkerProcesses,
    inside: bool,
    app: str,
    package: str,
) -> None:
    modules = ", ".join(repr(f"{package}tasks.{name}") for name in ("mail", "report"))
    (shop / "celery.py").write_text(APP.format(include=modules))
    for module, name in (("mail", "send"), ("report", "build")):
        (shop / "tasks" / f"{module}.py").write_text(TASK.format(celery=f"{package}celery", name=name))
    worker = worker_process(
        "-P", "solo", app=app, cwd=shop if inside else shop.parent, env=bare_project.environment
    )

    assert f"- {package}tasks.mail.send\n- {package}tasks.report.build\n" in worker.output
    called = bare_project.run("call", f"{package}tasks.report.build", "--args", "[3]", "--wait")
    assert (called.code, called.data) == (0, 3)


def test_workdir_is_the_directory_of_the_start(bare_project: Project, shop: Path) -> None:
    (shop / "celery.py").write_text(APP.format(include=""))

    elsewhere = bare_project.run("-A", "celery", "config", "show", "--workdir", str(shop), "--json")

    assert elsewhere.code == 0, elsewhere.err


def test_a_module_of_settings_holds_where_the_app_says_nothing(bare_project: Project, shop: Path) -> None:
    (shop / "celery.py").write_text(APP.format(include="") + "app.conf.task_default_queue = 'usual'\n")
    bare_project.write("nightly.py", "task_default_queue = 'nightly'\nworker_concurrency = 3\n")

    shown = bare_project.run("-A", "shop", "--config", "nightly", "config", "show", "--json")

    assert shown.code == 0, shown.err
    values = {name: setting["value"] for name, setting in shown.data.items()}
    assert (values["worker_concurrency"], values["task_default_queue"]) == (3, "usual")


@pytest.fixture
def interruptible() -> Iterator[None]:
    """What is started can be interrupted, also where these tests run in the background and cannot."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
def test_ctrl_c_ends_the_wait_and_not_the_task(project: Project, raw_client: RawClient) -> None:
    with subprocess.Popen(
        [*COMMAND, "call", "proj.add", "--args", "[1, 2]", "--wait"],
        cwd=project.path,
        env=project.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        eventually(lambda: raw_client.depth("hipri") == 1, within=20)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=15)

    assert (process.returncode, out, err.strip()) == (ExitCode.INTERRUPTED, "", "interrupted")
    assert raw_client.depth("hipri") == 1
