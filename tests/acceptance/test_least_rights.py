"""The permissions that docs/explanation/security.md tells people to give are enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import Vhost, WorkerProcesses

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"
REPLIES = r"^amqp_tasks\.reply\..*"
PRODUCER: dict[str, Any] = {"configure": REPLIES, "write": r"^amq\.default$", "read": REPLIES}
WORKER: dict[str, Any] = {
    "configure": "^$",
    "write": r"^amq\.default$",
    "read": r"^(default|hipri|lopri|amqp_tasks\.journal)$",
}

TO_DELAY = r"^(amq\.default|amqp_tasks\.delay\..*|default|hipri|lopri)$"
DELAYING_PRODUCER: dict[str, Any] = {
    "configure": r"^amqp_tasks\.(reply|delay)\..*",
    "write": TO_DELAY,
    "read": r"^amqp_tasks\.(reply|delay)\..*",
}
DELAYING_WORKER: dict[str, Any] = {
    "configure": r"^amqp_tasks\.delay\..*",
    "write": TO_DELAY,
    "read": r"^(default|hipri|lopri|amqp_tasks\.(journal|delay\..*))$",
}


def test_the_page_names_these_permissions() -> None:
    text = PAGE.read_text().replace("\\\n    ", "")

    for rights in (PRODUCER, WORKER, DELAYING_PRODUCER, DELAYING_WORKER):
        assert " ".join(f"'{rights[name]}'" for name in ("configure", "write", "read")) in text


def test_once_the_queues_exist_they_suffice_for_producer_and_worker(
    project: Project, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    project.run("topology", "apply")
    worker = {"AMQP_TASKS_BROKER_URL": vhost.limited_url(**WORKER)}
    producer: dict[str, Any] = {"AMQP_TASKS_BROKER_URL": vhost.limited_url(**PRODUCER)}
    worker_process("-c", "1", app="proj", env=worker)

    added = project.run("call", "proj.add", "--args", "[1, 2]", "--wait", **producer)
    unknown = project.run("call", "no.such.task", "--queue", "hipri", "--wait", **producer)

    assert (added.code, added.out) == (ExitCode.OK, "3\n"), added.err
    assert unknown.code == ExitCode.FAILED
    assert "NotRegistered" in unknown.err
    dead = project.run("dlq", "list", "-Q", "hipri", "--json").data
    # There twice where the refusal of the worker's first event took the channel along before the confirm had come.
    assert [letter["task"] for letter in {letter["id"]: letter for letter in dead}.values()] == [
        "no.such.task"
    ]


def test_a_producer_can_neither_read_nor_remove_tasks(project: Project, vhost: Vhost) -> None:
    project.run("topology", "apply")
    producer: dict[str, Any] = {"AMQP_TASKS_BROKER_URL": vhost.limited_url(**PRODUCER)}

    purged = project.run("purge", "--yes", **producer)

    assert purged.code != ExitCode.OK
    assert "403" in purged.err


def test_those_for_delays_suffice_for_calls_and_retries_with_a_delay(
    project: Project, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    project.write(
        "proj.py",
        """
        from amqp_tasks import App

        app = App("proj", task_routes={"proj.again": "hipri", "proj.fail": "lopri"})

        @app.task(bind=True)
        def again(self) -> int:
            if not self.request.retries:
                raise self.retry(countdown=1)
            return self.request.retries

        @app.task
        def fail() -> None:
            raise ValueError
        """,
    )
    project.run("topology", "apply")
    worker = {"AMQP_TASKS_BROKER_URL": vhost.limited_url(**DELAYING_WORKER)}
    producer: dict[str, Any] = {"AMQP_TASKS_BROKER_URL": vhost.limited_url(**DELAYING_PRODUCER)}
    worker_process("-c", "1", app="proj", env=worker)

    delayed = project.run("call", "proj.again", "--countdown", "1", "--wait", "--timeout", "20", **producer)
    refused = project.run(
        "call", "proj.again", "--countdown", "1", AMQP_TASKS_BROKER_URL=vhost.limited_url(**PRODUCER)
    )

    assert (delayed.code, delayed.out) == (ExitCode.OK, "1\n"), delayed.err
    assert refused.code == ExitCode.NOT_SENT
    assert "403" in refused.err
