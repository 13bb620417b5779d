"""What is left of a failed workflow when its dead letters were purged: joins, which have no step to name them."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

import pytest

from amqp_routing import Queue, Topology
from amqp_tasks import App
from amqp_tasks.message import OutgoingMessage, Properties, definition_message, outcome_message
from amqp_tasks.transport import TopologyMode

FAILED, OTHER = "amqp_tasks.join.nightly.1", "amqp_tasks.join.nightly.70"
ERROR = ValueError("no")


@pytest.fixture
def app() -> Iterator[App]:
    """An app with two joins of a workflow; the first of it has ended, of the last nothing has come."""
    with App("left", broker=f"memory://{uuid.uuid4().hex}/") as made:
        joins = Topology(queues=(Queue(FAILED), Queue(OTHER)))
        needed = made.resources.topologies.for_queues(["default"]).merged(joins)
        made.transport.ensure_topology(needed, mode=TopologyMode.DECLARE)
        waiting = {"body": {"task": "t"}, "chain": [{"task": "u"}], "joins": []}
        for queue in (FAILED, OTHER):
            put(made, definition_message(queue, {"size": 2, "steps": [waiting]}))
        yield made


def put(app: App, *messages: OutgoingMessage) -> None:
    for message in messages:
        app.transport.publish(message)


def depths(app: App) -> list[int | None]:
    found = [app.transport.queue_status(queue) for queue in (FAILED, OTHER)]
    return [None if status is None else status.messages for status in found]


def test_joins_that_wait_for_a_failed_step_go_with_the_others_of_their_workflow(app: App) -> None:
    """They blocked the id for ever: nobody could name them."""
    odd = OutgoingMessage(exchange="", routing_key=FAILED, body=b"?", properties=Properties())
    put(app, odd, outcome_message(FAILED, 0, "a", value=1))
    put(app, outcome_message(FAILED, 1, "b", error=ERROR, kept_as="b 0"))

    assert app.workflows.discard("nightly") == 4

    assert depths(app) == [None, None]


def test_a_workflow_of_which_nothing_has_failed_keeps_its_joins(app: App) -> None:
    put(app, outcome_message(FAILED, 0, "a", value=1))

    assert app.workflows.discard("nightly") == 0

    assert depths(app) == [2, 1]


def test_a_failed_step_that_has_run_again_and_ended_well_has_not_failed(app: App) -> None:
    failure = outcome_message(FAILED, 1, "b", error=ERROR, kept_as="b 0")
    put(app, failure, outcome_message(FAILED, 1, "b", value=1))

    assert app.workflows.discard("nightly") == 0

    assert depths(app) == [3, 1]


def test_what_another_join_has_told_of_a_failure_of_its_own_counts_only_there(app: App) -> None:
    """It stays after that one's step was resumed and has ended well; then the workflow runs."""
    put(app, outcome_message(OTHER, 1, "c", error=ERROR, kept_as=f"{FAILED} 0"))

    assert app.workflows.discard("nightly") == 0

    assert depths(app) == [1, 2]


def test_where_not_all_dead_letters_were_looked_at_joins_stay(app: App) -> None:
    put(app, outcome_message(FAILED, 1, "b", error=ERROR, kept_as="b 0"))

    assert app.workflows.discard("nightly", queues=["default"]) == 0

    assert depths(app) == [2, 1]


def test_a_join_in_which_nothing_is_counted_is_looked_at_no_longer(app: App) -> None:
    app.transport.purge_queue(OTHER)

    assert app.workflows.discard("nightly") == 0

    assert depths(app) == [1, 0]
