"""`amqp-tasks demo`, on RabbitMQ and on the broker inside the process."""

from __future__ import annotations

from pathlib import Path

import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import Vhost, eventually


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory of three hundred text files, two of them of a known size."""
    directory = tmp_path / "files"
    directory.mkdir()
    for number in range(300):
        (directory / f"{number:03}.txt").write_text("import this\nand that\n" * 200)
    (directory / "longest.txt").write_text("x" * 12345)
    (directory / "empty.txt").write_text("")
    return directory


@pytest.mark.timeout(120)
def test_the_demo_indexes_every_file_and_measures_both_queues(
    project: Project, vhost: Vhost, files: Path
) -> None:
    done = project.run("demo", "--path", str(files), "--json", timeout=90)

    assert done.code == ExitCode.OK, done.err
    report = done.data
    assert report["tasks"] == 302
    assert report["totals"] == {"bytes": 300 * 4200 + 12345, "lines": 300 * 400 + 1, "words": 300 * 800 + 1}
    assert report["longest_line"] == 12345
    assert report["broker"].startswith("RabbitMQ")
    assert report["hipri"]["count"] == report["lopri"]["count"] > 0
    assert "processes of `amqp-tasks worker`" in done.err


@pytest.mark.timeout(120)
def test_the_demo_leaves_no_queue_behind_and_touches_no_other(
    project: Project, vhost: Vhost, files: Path
) -> None:
    project.run("topology", "apply")
    project.run("call", "proj.add", "--args", "[1, 2]")
    before = {row["name"] for row in vhost.queues() if not row["name"].startswith("amqp_tasks.reply")}

    done = project.run("demo", "--path", str(files), "--max-files", "20", timeout=90)

    assert done.code == ExitCode.OK, done.err

    def only_ours() -> None:
        left = {row["name"] for row in vhost.queues() if not row["name"].startswith("amqp_tasks.reply")}
        assert left == before

    eventually(only_ours, within=15)
    assert project.run("queues", "hipri", "--json").data[0]["ready"] == 1


@pytest.mark.timeout(120)
def test_the_demo_runs_on_the_embedded_broker_and_says_so(bare_project: Project, files: Path) -> None:
    done = bare_project.run("demo", "--path", str(files), "-b", "memory://", timeout=90)

    assert done.code == ExitCode.OK, done.err
    assert "embedded" in done.out
    assert "docker run" in done.out
    assert "302 tasks in" in done.out
    assert "\x1b" not in done.out


def test_a_demo_whose_broker_does_not_answer_says_so(bare_project: Project, files: Path) -> None:
    done = bare_project.run(
        "demo", "--path", str(files), AMQP_TASKS_BROKER_URL="amqp://guest:guest@127.0.0.1:1//"
    )

    assert done.code == ExitCode.BROKER
    assert "127.0.0.1:1" in done.err
    assert "Traceback" not in done.err


def test_a_demo_without_files_says_so(bare_project: Project, tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()

    done = bare_project.run("demo", "--path", "nothing", "-b", "memory://")

    assert done.code == ExitCode.FAILED
    assert "--path" in done.err
