"""What lies in the dead letters of a lost step, while its join waits for it and when that has ended."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from amqp_routing import Queue, Topology
from amqp_tasks import App
from amqp_tasks.message import DeadLetterReason, JoinWatch, StepMark, dead_letter, watch_message
from amqp_tasks.transport import TopologyMode

WAITING, LATER = "amqp_tasks.join.nightly.0", "amqp_tasks.join.nightly.1"


@pytest.fixture
def app() -> Iterator[App]:
    """An app in whose dead letters lies the watch of the first join of two, given up."""
    with App("lost", broker=f"memory://{uuid.uuid4().hex}/") as made:
        joins = Topology(queues=(Queue(WAITING), Queue(LATER)))
        needed = made.resources.topologies.for_queues(["default"]).merged(joins)
        made.transport.ensure_topology(needed, mode=TopologyMode.DECLARE)
        mark = StepMark(workflow_id="nightly", step="both", joins=2)
        call: dict[str, Any] = {"task": "t", "options": {"task_id": "both-1", "headers": mark.header}}
        definition = {"size": 2, "steps": [{"body": call}]}
        watch = JoinWatch(queue=WAITING, definition=definition, since=0.0, pause=1.0)
        message = watch_message(watch, exchange="", routing_key="default")
        letter = dead_letter(
            queue_name="default", exchange="", routing_key="default", properties=message.properties,
            body=message.body, reason=DeadLetterReason.STEP_LOST, detail="nothing new has come",
        )  # fmt: skip
        made.transport.publish(letter)
        yield made


def _depth(app: App, queue: str) -> int | None:
    status = app.transport.queue_status(queue)
    return None if status is None else status.messages


def test_while_its_join_waits_the_workflow_is_listed_and_can_be_resumed(app: App) -> None:
    assert [each.step for each in app.workflows.failed_steps()] == ["both"]

    assert app.workflows.resume("nightly").count == 1

    assert (_depth(app, "default"), _depth(app, "default.dead")) == (1, 0)


def test_while_its_join_waits_giving_it_up_removes_all_joins(app: App) -> None:
    assert app.workflows.discard("nightly") == 1

    assert (_depth(app, WAITING), _depth(app, LATER), _depth(app, "default.dead")) == (None, None, 0)


def test_when_its_join_has_ended_the_workflow_is_listed_no_more(app: App) -> None:
    app.transport.delete_queue(WAITING)

    assert app.workflows.failed_steps() == []
    assert app.workflows.failed_steps("nightly") == []
    assert _depth(app, "default.dead") == 1


def test_when_its_join_has_ended_a_resume_removes_the_letter_and_sends_nothing(app: App) -> None:
    app.transport.delete_queue(WAITING)

    done = app.workflows.resume("nightly")

    assert (done.count, done.failures) == (0, ())
    assert (_depth(app, "default"), _depth(app, "default.dead")) == (0, 0)


def test_when_its_join_has_ended_giving_it_up_leaves_the_joins_of_what_still_runs(app: App) -> None:
    app.transport.delete_queue(WAITING)

    assert app.workflows.discard("nightly") == 1

    assert (_depth(app, LATER), _depth(app, "default.dead")) == (0, 0)
