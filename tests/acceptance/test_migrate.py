"""`amqp-tasks topology migrate`. Row R14."""

from __future__ import annotations

import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import RawClient
from support.brokers import BrokerNode


@pytest.fixture
def old_queue(raw_client: RawClient) -> RawClient:
    """The queue `hipri` as an earlier version declared it, with three messages."""
    raw_client.declare("hipri", {"x-queue-type": "classic"})
    for name in "abc":
        raw_client.publish("hipri", name.encode(), {"id": name, "task": "t"})
    return raw_client


def test_a_difference_leads_to_a_dry_run_and_that_to_the_migration(
    project: Project, old_queue: RawClient
) -> None:
    check = project.run("topology", "check")
    dry = project.run("topology", "migrate", "hipri", "--dry-run")
    depth = old_queue.depth("hipri")
    done = project.run("topology", "migrate", "hipri", "--quiet-time", "0.5")
    again = project.run("topology", "migrate", "hipri", "--json")

    assert "amqp-tasks topology migrate hipri" in check.out
    assert (dry.code, depth) == (ExitCode.OK, 3)
    assert "x-queue-type=classic" in dry.out
    assert "give --management" in dry.out
    assert (done.code, done.out.splitlines()[-1]) == (ExitCode.OK, "migrated, 3 messages moved")
    assert done.err.split("\n")[:3] == ["move out", "swap", "move back"]
    assert (again.code, again.data["next_step"], again.data["moved"]) == (ExitCode.OK, "done", 0)
    assert [message.body for message in old_queue.drain("hipri")] == [b"a", b"b", b"c"]
    assert project.run("topology", "check").code == ExitCode.FAILED  # the other queues are missing still


def test_a_consumed_queue_is_refused_in_one_line(project: Project, old_queue: RawClient) -> None:
    old_queue.channel.basic_consume("hipri", lambda *_: None)

    done = project.run("topology", "migrate", "hipri")

    assert done.code == ExitCode.FAILED
    assert "1 consume it: stop the workers of this queue" in done.err
    assert "Traceback" not in done.err


def test_a_password_in_the_management_url_is_shown_nowhere(project: Project, old_queue: RawClient) -> None:
    done = project.run(
        "topology", "migrate", "hipri", AMQP_TASKS_MANAGEMENT_URL="http://me:s3cr3t-canary@127.0.0.1:1"
    )

    assert done.code == ExitCode.BROKER
    assert "the management API at http://127.0.0.1:1/api does not answer: [Errno" in done.err
    assert "check the URL, and whether RabbitMQ's plugin rabbitmq_management is enabled" in done.err
    assert "s3cr3t" not in done.out + done.err


@pytest.mark.parametrize("command", [["account"], ["topology", "migrate", "hipri"]], ids=" ".join)
def test_a_wrong_password_for_the_management_api_ends_as_one_for_the_broker(
    project: Project, old_queue: RawClient, broker: BrokerNode, command: list[str]
) -> None:
    url = broker.management.base.removesuffix("/api").replace("://", "://guest:s3cr3t-canary@")

    done = project.run(*command, AMQP_TASKS_MANAGEMENT_URL=url)

    assert done.code == ExitCode.BROKER
    assert "answered 401 Unauthorized: check user, password and rights" in done.err
    assert "s3cr3t" not in done.out + done.err
