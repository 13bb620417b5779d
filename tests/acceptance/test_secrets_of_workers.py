"""What a worker shows to people, to its tasks' callers and to the broker holds no password."""

from __future__ import annotations

import json
import signal

import pytest

from acceptance.project import Project
from amqp_tasks import App
from amqp_tasks.errors import RemoteError
from support import SECRET, Vhost, WorkerProcesses, eventually

APP = """
from amqp_tasks import App

app = App("proj", task_remote_tracebacks=True)


@app.task
def talk():
    settings = app.settings
    told = [repr(app), repr(app.conf), str(app.conf), repr(settings), str(settings), repr(settings.broker),
            repr(app.transport), repr(app.backend), app.conf.as_dict(), str(app.conf.broker_url)]
    print(told)
    return str(told)


@app.task
def leak():
    settings = app.settings
    raise RuntimeError(str(settings), repr(app.conf.broker_url))
"""


@pytest.fixture
def secret_url(vhost: Vhost) -> str:
    """A user who may do anything in the virtual host, with the canary as password."""
    return vhost.limited_url(configure=".*", write=".*", read=".*")


def test_neither_tasks_nor_signals_nor_lost_connections_make_a_worker_tell_its_password(
    bare_project: Project, vhost: Vhost, secret_url: str, worker_process: WorkerProcesses
) -> None:
    bare_project.write("proj.py", APP)
    env = {"AMQP_TASKS_BROKER_URL": secret_url}
    worker = worker_process("-c", "1", "-l", "debug", app="proj", cwd=bare_project.path, env=env)
    app = App("client", broker=secret_url)

    told = app.send_task("proj.talk").get(timeout=10)
    with pytest.raises((RuntimeError, RemoteError)) as caught:
        app.send_task("proj.leak").get(timeout=10)
    worker.signal(signal.SIGQUIT)
    worker.wait_output(r"_supervisor\.py")
    shown_by_broker = json.dumps(eventually(lambda: _at_least_one(vhost), within=10))
    vhost.close_connections(at_least=2)
    worker.wait_output(r"(?i)lost|closed|reconnect")
    again = app.send_task("proj.talk").get(timeout=15)
    app.close()

    notes = "".join(getattr(caught.value, "__notes__", ()))
    assert "broker" in told
    for text in (told, again, str(caught.value), repr(caught.value), notes, worker.output, shown_by_broker):
        assert SECRET not in text


def _at_least_one(vhost: Vhost) -> list[dict[str, object]]:
    found = vhost.connections()
    assert found
    return found
