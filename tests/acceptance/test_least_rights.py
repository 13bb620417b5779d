"""The permissions that docs/explanation/security.md tells people to give are enough."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from acceptance.project import Project
from amqp_tasks.app import App
from amqp_tasks.app._rights import Role, Use, least_patterns, needs_of
from amqp_tasks.cli import ExitCode
from support import Vhost, WorkerProcesses

PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "security.md"
QUEUES = ("default", "hipri", "lopri")


def rights(role: Role, *used: Use) -> dict[str, Any]:
    """The least patterns for the queues of the page, with only these uses, and results for a producer."""
    without = set(Use) - {Use.RESULTS, *used}
    needs = needs_of(App("proj", task_queues=QUEUES), role, QUEUES, without=without)
    return {str(name): pattern for name, pattern in least_patterns(needs).items()}


PRODUCER, WORKER = rights(Role.PRODUCER), rights(Role.WORKER)
DELAYING_PRODUCER, DELAYING_WORKER = rights(Role.PRODUCER, Use.DELAYS), rights(Role.WORKER, Use.DELAYS)
CHORD_PRODUCER, CHORD_WORKER = rights(Role.PRODUCER, Use.CHORDS), rights(Role.WORKER, Use.CHORDS)


@pytest.mark.parametrize(
    ("role", "permitted"),
    [
        ("producer", PRODUCER),
        ("worker", WORKER),
        ("producer", DELAYING_PRODUCER),
        ("worker", DELAYING_WORKER),
        ("producer", CHORD_PRODUCER),
        ("worker", CHORD_WORKER),
    ],
)
def test_the_page_names_the_rights_that_the_code_needs(role: str, permitted: dict[str, Any]) -> None:
    lines = [f"rabbitmqctl set_permissions -p shop {role}"]
    lines += [f"    '{permitted[name]}'" for name in ("configure", "write", "read")]

    assert " \\\n".join(lines) + "\n" in PAGE.read_text()


@pytest.mark.parametrize(
    ("role", "permitted"), [("producer", DELAYING_PRODUCER), ("worker", DELAYING_WORKER)]
)
def test_check_says_that_they_suffice_and_names_one_that_is_missing(
    project: Project, vhost: Vhost, role: str, permitted: dict[str, Any]
) -> None:
    project.run("topology", "apply")
    url = vhost.limited_url(**permitted)
    environment: dict[str, Any] = {"AMQP_TASKS_BROKER_URL": url}
    command = ["check", "--as", role, "--without", "chords", "--without", "events"]

    granted = project.run(*command, **environment)
    vhost.permit(url, **permitted | {"write": r"^(amq\.default|amqp_tasks\.delay\..*|default|lopri)$"})
    refused = project.run(*command, "--json", **environment)

    assert granted.code == ExitCode.OK, granted.err
    assert f"'{permitted['configure']}' '{permitted['write']}' '{permitted['read']}'" in granted.out
    assert refused.code == ExitCode.FAILED
    (missing,) = [need for need in refused.data["needs"] if not need["is_granted"]]
    assert (missing["permission"], missing["pattern"]) == ("write", "hipri")
    assert "access to queue 'hipri'" in missing["answer"]
    assert refused.data["least"] == permitted


def test_check_asks_for_the_queues_that_it_is_told(project: Project, vhost: Vhost) -> None:
    permitted: dict[str, Any] = {"write": r"^amq\.default$", "read": r"^(hipri|amqp_tasks\.journal)$"}
    url = vhost.limited_url(**permitted)
    without = [word for each in ("chords", "events", "delays") for word in ("--without", each)]

    one = project.run("check", "--as", "worker", "-Q", "hipri", *without, AMQP_TASKS_BROKER_URL=url)
    both = project.run("check", "--as", "worker", *without, AMQP_TASKS_BROKER_URL=url)

    assert one.code == ExitCode.OK, one.out
    assert both.code == ExitCode.FAILED
    assert [line.split()[1] for line in both.out.splitlines() if "REFUSED" in line] == ["default", "lopri"]


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


def test_those_for_chords_suffice_for_a_chord(
    project: Project, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    project.write(
        "proj.py",
        """
        from amqp_tasks import App, chord, group

        app = App("proj", task_routes={"proj.add": "hipri", "proj.total": "lopri"})

        @app.task
        def add(x: int, y: int) -> int:
            return x + y

        @app.task
        def total(numbers: list[int]) -> int:
            return sum(numbers)

        if __name__ == "__main__":
            with app:
                print(chord(group(add.s(1, 2), add.s(3, 4)), total.s()).delay().get(timeout=30))
        """,
    )
    project.run("topology", "apply")
    worker_process("-c", "1", app="proj", env={"AMQP_TASKS_BROKER_URL": vhost.limited_url(**CHORD_WORKER)})
    project.environment["AMQP_TASKS_BROKER_URL"] = vhost.limited_url(**CHORD_PRODUCER)

    done = project.run_python("proj.py")

    assert (done.code, done.out) == (0, "10\n"), done.err
