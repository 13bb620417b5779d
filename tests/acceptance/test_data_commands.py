"""Commands that show or change what the broker holds."""

from __future__ import annotations

import re

import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support.scripted_broker import NOT_RUNNING, Fault, ScriptedBroker


def test_topology_apply_makes_what_show_says_and_check_finds_nothing_more(project: Project) -> None:
    before = project.run("topology", "check", "--json")
    applied = project.run("topology", "apply")
    after = project.run("topology", "check")

    assert before.code == ExitCode.FAILED
    assert before.data["differences"]
    assert applied.code == ExitCode.OK, applied.err
    assert (after.code, after.out) == (ExitCode.OK, ""), after.err


def test_topology_check_names_each_difference_with_its_remedy(project: Project) -> None:
    project.run("topology", "apply")

    checked = project.run("topology", "check", AMQP_TASKS_TASK_DELIVERY_LIMIT="7")

    assert checked.code == ExitCode.FAILED
    assert all(name in checked.out for name in ("hipri", "lopri", "x-delivery-limit"))
    assert all(
        "7" in line and "50" in line for line in checked.out.splitlines() if "x-delivery-limit" in line
    )


def test_topology_show_says_every_queue_with_its_arguments(project: Project) -> None:
    shown = project.run("topology", "show")
    data = project.run("topology", "show", "--json").data

    assert all(name in shown.out for name in ("hipri", "lopri.dead", 'x-queue-type="quorum"'))
    assert {queue["name"] for queue in data["queues"]} >= {
        "hipri",
        "hipri.dead",
        "lopri",
        "lopri.dead",
        "default",
    }


def test_queues_shows_one_that_does_not_run_beside_the_others(bare_project: Project) -> None:
    with ScriptedBroker() as broker:
        bare_project.environment["AMQP_TASKS_BROKER_URL"] = broker.url
        broker.misbehave("Queue.Declare", Fault.CLOSE_CHANNEL, reply=NOT_RUNNING)

        shown = bare_project.run("queues", "default", "--json")
        told = bare_project.run("queues", "default")

    assert [(row["queue"], row["ready"], row["state"]) for row in shown.data] == [("default", None, "down")]
    assert "the dead letters could not be counted" in told.err
    assert "whether queues are paused is not known" in told.err


@pytest.mark.parametrize(("style", "start"), [("text", "("), ("dot", "digraph"), ("mermaid", "flowchart")])
def test_topology_graph_draws_without_a_broker(project: Project, style: str, start: str) -> None:
    drawn = project.run("topology", "graph", "--format", style, AMQP_TASKS_BROKER_URL="amqp://127.0.0.1:1//")

    assert drawn.code == ExitCode.OK, drawn.err
    assert drawn.out.startswith(start)
    assert "hipri" in drawn.out


def test_topology_explain_says_where_a_task_goes_and_why(project: Project) -> None:
    by_route = project.run("topology", "explain", "proj.add")
    by_option = project.run("topology", "explain", "proj.add", "--queue", "lopri", "--json")

    assert by_route.code == ExitCode.OK, by_route.err
    assert "hipri" in by_route.out
    assert "has this name" in by_route.out
    assert by_option.data["queues"] == ["lopri"]


def test_queues_shows_depth_consumers_and_type(project: Project) -> None:
    missing = project.run("queues", "hipri", "--json").data
    project.run("topology", "apply")
    for _ in range(3):
        project.run("call", "proj.add", "--args", "[1, 2]")
    shown = project.run("queues")
    data = {row["queue"]: row for row in project.run("queues", "--json").data}

    assert missing == [
        {
            "queue": "hipri",
            "type": "quorum",
            "ready": None,
            "consumers": None,
            "state": "missing",
            "differences": [],
        }
    ]
    assert re.search(r"^hipri +quorum +3 +0 +ok$", shown.out, re.MULTILINE)
    assert data["hipri"]["ready"] == 3
    assert data["lopri"]["ready"] == 0


def test_queues_says_which_are_not_as_declared(project: Project) -> None:
    project.run("topology", "apply")
    project.environment["AMQP_TASKS_TASK_DELIVERY_LIMIT"] = "7"

    shown = project.run("queues", "hipri", "hipri.dead")
    data = project.run("queues", "hipri", "hipri.dead", "--json").data
    project.run("pause", "hipri")
    paused = project.run("queues", "hipri", "--json").data

    assert re.search(r"^hipri +quorum +0 +0 +differs$", shown.out, re.MULTILINE)
    assert re.search(r"^hipri.dead +quorum +0 +0 +ok$", shown.out, re.MULTILINE)
    assert shown.err == "the broker has other arguments of hipri; to see which: amqp-tasks topology check\n"
    assert [row["state"] for row in data] == ["differs", "ok"]
    (said,) = data[0]["differences"]
    assert "exists with x-delivery-limit=50, declared as x-delivery-limit=7" in said
    assert (paused[0]["state"], paused[0]["differences"]) == ("paused", [said])


def test_b053_queues_are_paused_and_resumed_and_shown_so(project: Project) -> None:
    project.run("topology", "apply")

    paused = project.run("pause", "hipri", "lopri")
    shown = {row["queue"]: row["state"] for row in project.run("queues", "--json").data}
    resumed = project.run("resume", "hipri")
    later = project.run("queues")

    assert (paused.code, paused.out, paused.err) == (ExitCode.OK, "", "")
    assert (shown["hipri"], shown["lopri"], shown["default"]) == ("paused", "paused", "ok")
    assert resumed.code == ExitCode.OK, resumed.err
    assert re.search(r"^hipri .* ok$", later.out, re.MULTILINE)
    assert re.search(r"^lopri .* paused$", later.out, re.MULTILINE)


def test_a_queue_that_nobody_knows_is_not_paused(project: Project) -> None:
    refused = project.run("pause", "hipry")

    assert refused.code == ExitCode.USAGE
    assert refused.err.startswith("error: unknown queue 'hipry' (known: ")
    assert refused.err.count("\n") == 1


def test_purge_asks_and_without_a_terminal_wants_yes(project: Project) -> None:
    project.run("topology", "apply")
    project.run("call", "proj.add", "--args", "[1, 2]")

    refused = project.run("purge", "-Q", "hipri")
    kept = project.run("queues", "hipri", "--json").data[0]["ready"]
    purged = project.run("purge", "-Q", "hipri", "--yes", "--json")

    assert (refused.code, kept) == (ExitCode.USAGE, 1)
    assert "--yes" in refused.err
    assert purged.data == [{"queue": "hipri", "purged": 1}]


def test_purge_takes_all_task_queues_but_no_dead_letters_and_not_what_is_excluded(project: Project) -> None:
    project.run("topology", "apply")

    purged = project.run("purge", "-X", "default", "--yes", "--json")

    assert [row["queue"] for row in purged.data] == ["hipri", "lopri"]


def test_purge_of_a_queue_that_is_not_there_fails_where_it_was_named(project: Project) -> None:
    undeclared = project.run("purge", "--yes", "--json")
    project.run("topology", "apply")

    named = project.run("purge", "-Q", "hipri,nosuch", "--yes", "--json")

    assert (undeclared.code, undeclared.data[0]["purged"]) == (ExitCode.OK, None)
    assert named.code == ExitCode.FAILED
    assert named.data == [{"queue": "hipri", "purged": 0}, {"queue": "nosuch", "purged": None}]


def test_config_show_says_value_and_origin_of_each_setting(project: Project) -> None:
    everything = project.run("config", "show", "--json", AMQP_TASKS_WORKER_CONCURRENCY="3").data
    changed = project.run("config", "show", "--changed", AMQP_TASKS_WORKER_CONCURRENCY="3").out

    assert everything["worker_concurrency"]["value"] == 3
    assert "environment" in everything["worker_concurrency"]["origin"]
    assert everything["task_acks_late"] == {"value": True, "origin": "default"}
    assert "worker_concurrency" in changed
    assert "task_acks_late" not in changed


def test_report_shows_versions_and_broker_and_bears_an_absent_one(project: Project) -> None:
    reached = project.run("report", "--json")
    absent = project.run("report", "--json", "--timeout", "1", AMQP_TASKS_BROKER_URL="amqp://127.0.0.1:1//")

    assert reached.data["broker"]["product"] == "RabbitMQ"
    assert set(reached.data["versions"]) >= {"python", "amqp-tasks", "pika"}
    assert absent.code == ExitCode.OK
    assert "127.0.0.1:1" in absent.data["broker"]["unreachable"]
