"""`amqp-tasks delayed`."""

from __future__ import annotations

from acceptance.project import Project
from amqp_tasks.cli import ExitCode


def test_what_waits_is_listed_by_id_and_can_be_revoked(project: Project) -> None:
    for task_id, countdown in (("far", "900"), ("near", "600"), ("later", "700")):
        call = ("call", "proj.add", "--args", "[1, 2]", "--task-id", task_id, "--countdown", countdown)
        assert project.run(*call, AMQP_TASKS_TASK_DELAYED_INDEX="true").code == ExitCode.OK
    assert project.run("revoke", "near").code == ExitCode.OK

    listed = project.run("delayed", "--json")
    table = project.run("delayed", "near", "far")
    cut = project.run("delayed", "--limit", "1", "-t", "proj.*", "-Q", "hipri")
    other = project.run("delayed", "-t", "other")

    rows = {(row["id"], row["state"]) for row in listed.data}
    assert rows == {("near", "revoked"), ("later", "waits"), ("far", "waits")}
    assert [row["id"] for row in listed.data] == ["near", "later", "far"]
    assert {row["task"] for row in listed.data} == {"proj.add"}
    assert [line.split()[2] for line in table.out.splitlines()[1:]][-2:] == ["near", "far"]
    assert "stopped at --limit 1" in cut.err
    assert (other.out, other.err.strip()) == ("", "no delayed tasks")


def test_without_an_index_the_setting_is_told(project: Project) -> None:
    done = project.run("delayed")

    assert done.code == ExitCode.USAGE
    assert "set task_delayed_index=True" in done.err
