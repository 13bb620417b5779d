"""`amqp-tasks dlq`, and the warnings that lead there."""

from __future__ import annotations

import subprocess
import uuid

import pytest

from acceptance.project import COMMAND, Project
from amqp_tasks.cli import ExitCode
from support import RawClient, WorkerProcesses, eventually


@pytest.fixture
def letters(project: Project, raw_client: RawClient) -> list[str]:
    """Three dead letters of two queues, by their ids."""
    project.run("topology", "apply")
    ids = [str(uuid.uuid4()) for _ in range(3)]
    for number, (each, queue) in enumerate(zip(ids, ("hipri", "hipri", "lopri"), strict=True)):
        headers = {
            "id": each, "task": f"proj.{queue}", "x-error-reason": "failed", "x-error-type": "ValueError",
            "x-error-message": "no\x1b[2J amqp://me:s3cr3t@mq/", "x-error-time": f"2026-01-0{number + 1}T00:00:00+00:00",
            "x-error-traceback": "Traceback\n  in fail",
        }  # fmt: skip
        raw_client.publish(f"{queue}.dead", b"\xff\x00" if number else b"[[], {}, {}]", headers)
    return ids


def test_list_and_show_say_what_lies_there_safely_and_leave_it(
    project: Project, raw_client: RawClient, letters: list[str]
) -> None:
    listed = project.run("dlq", "list")
    as_json = project.run("dlq", "list", "--json", "-w", "task=*.hipri", "-w", "older=1h").data
    shown = project.run("dlq", "show", letters[0])
    data = project.run("dlq", "show", letters[2], "--json").data

    assert [line.split()[0] for line in listed.out.splitlines()[1:]] == letters
    assert [row["id"] for row in as_json] == letters[:2]
    assert "in fail" in shown.out
    assert "[[], {}, {}]" in shown.out
    assert (data[0]["queue"], data[0]["body_base64"]) == ("lopri", "/wA=")
    for text in (listed.out, shown.out, str(data)):
        assert "s3cr3t" not in text
        assert "\x1b" not in text
    assert (raw_client.depth("hipri.dead"), raw_client.depth("lopri.dead")) == (2, 1)


def test_requeue_puts_back_what_is_chosen(
    project: Project, raw_client: RawClient, letters: list[str]
) -> None:
    one = project.run("dlq", "requeue", letters[1], "--json")
    rest = project.run("dlq", "requeue", "-Q", "hipri,lopri", "-w", "reason=failed")
    none = project.run("dlq", "requeue", letters[1])

    assert (one.code, one.data) == (ExitCode.OK, {"requeued": 1, "failed": [], "missing": []})
    assert (rest.code, rest.out) == (ExitCode.OK, "2 requeued\n")
    assert none.code == ExitCode.FAILED
    assert [message.headers["id"] for message in raw_client.drain("hipri")] == [letters[1], letters[0]]
    assert raw_client.depth("lopri") == 1


def test_what_cannot_be_put_back_is_named_as_list_names_it(project: Project, raw_client: RawClient) -> None:
    project.run("topology", "apply")
    name = "odd\x1b \u202e"
    raw_client.publish("hipri.dead", b"", {"id": name, "x-error-reason": "failed"})
    raw_client.delete("hipri")

    (listed,) = project.run("dlq", "list", "--json").data
    done = project.run("dlq", "requeue", "--json")

    assert done.code == ExitCode.FAILED
    assert [each["id"] for each in done.data["failed"]] == [listed["id"]] == [name]


def test_sensitive_arguments_are_shown_in_no_way(project: Project, worker_process: WorkerProcesses) -> None:
    project.write(
        "proj.py",
        """
        from amqp_tasks import App

        app = App("proj")

        @app.task(sensitive=("pin",), ignore_result=True)
        def login(user: str, pin: int) -> None:
            raise ValueError("no")
        """,
    )
    project.run("call", "proj.login", "-a", '["me", 987654]')
    worker_process("-c", "1", app="proj", env=project.environment, cwd=project.path)
    eventually(lambda: len(project.run("dlq", "list", "--json").data) == 1, within=20)

    shown = project.run("dlq", "show", "--limit", "1")
    data = project.run("dlq", "show", "--limit", "1", "--json")

    assert "('me', ***)" in shown.out
    assert "not shown, as it holds sensitive arguments" in shown.out
    assert "body" not in data.data[0]
    assert "987654" not in shown.out + data.out


def test_a_requeue_that_is_killed_leaves_duplicates_at_most_never_a_loss(
    project: Project, raw_client: RawClient
) -> None:
    project.run("topology", "apply")
    ids = {f"{number}" for number in range(700)}
    for each in sorted(ids):
        raw_client.publish("hipri.dead", b"x" * 2000, {"id": each, "x-error-reason": "failed"})

    command = subprocess.Popen(
        [*COMMAND, "dlq", "requeue"], cwd=project.path, env=project.environment, stdout=subprocess.DEVNULL
    )
    eventually(lambda: raw_client.depth("hipri") > 0, within=20)
    command.kill()
    command.wait(10)

    found: set[str] = set()

    def all_there() -> None:
        for queue in ("hipri", "hipri.dead"):
            found.update(message.headers["id"] for message in raw_client.drain(queue))
        assert found == ids

    eventually(all_there, within=20)


def test_purge_wants_yes_without_a_terminal_and_asks_at_one(
    project: Project, raw_client: RawClient, letters: list[str]
) -> None:
    refused = project.run("dlq", "purge")
    declined = project.run_at_terminal("n\n", "dlq", "purge", "-w", "task=*.hipri")
    assert (raw_client.depth("hipri.dead"), raw_client.depth("lopri.dead")) == (2, 1)
    agreed = project.run_at_terminal("y\n", "dlq", "purge", letters[0])
    purged = project.run("dlq", "purge", "-Q", "hipri", "--yes", "--json")

    assert refused.code == ExitCode.USAGE
    assert "--yes" in refused.err
    assert declined == ExitCode.FAILED
    assert agreed == ExitCode.OK
    assert purged.data == {"purged": 1, "missing": []}
    assert raw_client.depth("lopri.dead") == 1


def test_requeue_and_purge_of_an_id_that_is_not_there_fail(project: Project, letters: list[str]) -> None:
    for command in (["requeue"], ["purge", "--yes"]):
        done = project.run("dlq", *command, "nosuchid", "--json")

        assert (done.code, next(iter(done.data.values()))) == (ExitCode.FAILED, 0)
    assert project.run("dlq", "purge", "--yes", "-w", "id=nosuchid").code == ExitCode.OK


@pytest.mark.parametrize(
    ("command", "key"), [(["show"], ""), (["requeue"], "requeued"), (["purge", "--yes"], "purged")]
)
def test_ids_that_are_not_there_are_named_beside_those_that_are(
    project: Project, letters: list[str], command: list[str], key: str
) -> None:
    done = project.run("dlq", *command, "nosuchid", letters[0], "other\x1bid")
    as_json = project.run("dlq", *command, "nosuchid", letters[1], "--json")

    assert (done.code, done.err) == (ExitCode.FAILED, "not found: nosuchid\nnot found: other\\x1bid\n")
    assert as_json.code == ExitCode.FAILED
    if key:
        assert (as_json.data[key], as_json.data["missing"], as_json.err) == (1, ["nosuchid"], "")
    else:
        assert ([each["id"] for each in as_json.data], as_json.err) == ([letters[1]], "not found: nosuchid\n")


@pytest.mark.parametrize(
    ("condition", "said"),
    [("tsk=x", "did you mean 'task'"), ("older=soon", "such as 90s, 10m or 2h"), ("reason", "KEY=VALUE")],
)
def test_a_condition_that_is_none_is_said(project: Project, condition: str, said: str) -> None:
    refused = project.run("dlq", "list", "-w", condition)

    assert refused.code == ExitCode.USAGE
    assert said in refused.err


def test_worker_and_queues_warn_of_dead_letters(
    project: Project, worker_process: WorkerProcesses, letters: list[str]
) -> None:
    """Row U045."""
    worker = worker_process("-c", "1", "-Q", "lopri", app="proj", env=project.environment, cwd=project.path)
    queues = project.run("queues")

    assert "amqp-tasks dlq list -Q lopri" in worker.output
    assert "hipri.dead" not in worker.output
    assert "2 dead letters lie in hipri.dead; to see why: amqp-tasks dlq list -Q hipri" in queues.err


def test_a_failure_that_nobody_is_told_is_found_and_after_the_repair_runs_again(
    project: Project, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    """Rows B032, U045."""
    project.write(
        "proj.py",
        """
        from pathlib import Path
        from amqp_tasks import App

        app = App("proj")

        @app.task(ignore_result=True)
        def read(name: str) -> None:
            Path("copy").write_text(Path(name).read_text())
        """,
    )
    worker_process("-c", "1", app="proj", env=project.environment, cwd=project.path)
    project.run("call", "proj.read", "--args", '["original"]')
    eventually(lambda: raw_client.depth("default.dead") == 1, within=15)
    shown = project.run("dlq", "show", "--json").data
    project.write("original", "text")

    done = project.run("dlq", "requeue", "-w", "error=FileNotFoundError", "--json")

    assert [letter["task"] for letter in shown] == ["proj.read"]
    assert "read_text" in shown[0]["traceback"]
    assert done.data == {"requeued": 1, "failed": [], "missing": []}
    eventually((project.path / "copy").exists, within=15)
    assert raw_client.depth("default.dead") == 0
