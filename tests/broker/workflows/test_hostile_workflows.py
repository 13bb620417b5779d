"""Workflows that cannot go on as they are: too large, badly made, named wrongly. All come to an end (U049)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amqp_tasks import App, chain, chord, group
from amqp_tasks.errors import ChordError, InvalidArguments, NotSent, RemoteError
from amqp_tasks.message import JOIN_PREFIX, JOINS_HEADER, OutgoingMessage, Properties, definition_message
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.workflow_app import QUEUE, add, fail, gather, joined_next, large, rejoined, step

APP = "support.workflow_app:app"


def _joins(vhost: Vhost) -> list[Any]:
    return [queue["name"] for queue in vhost.queues() if "join" in queue["name"]]


def test_members_are_added_to_any_depth_in_order(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)

    result = chord([joined_next.s(0, 6), add.s(2, 2)], gather.s())()
    assert result.get(timeout=20) == [0, 4, 1, 2, 3, 4, 5, 6]
    eventually(lambda: not _joins(vhost), within=15)


def test_what_an_earlier_run_added_stands_in_for_no_member(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP)

    assert chord([rejoined.s(1), step.s(3, 4)], gather.s())().get(timeout=20) == [1, 7]


def test_a_member_whose_value_is_too_large_fails_the_chord(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)

    for part in (chord([add.s(1, 1), large.s()], gather.s()), large.s() | step.s(1)):
        with pytest.raises((ChordError, NotSent, RemoteError), match="max_message_bytes"):
            part().get(timeout=20)
    eventually(lambda: not _joins(vhost), within=15)


def test_a_chord_with_a_call_that_cannot_be_made_leaves_nothing(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient
) -> None:
    bad = add.s(1)
    with pytest.raises(InvalidArguments):
        chord([add.s(1, 1), bad], gather.s())()
    assert not _joins(vhost)
    worker_process("-c", "2", app=APP)
    with App("stranger", broker_url=vhost.url, task_default_queue=QUEUE) as stranger:
        first, bad = stranger.signature("add", (1, 1)), stranger.signature("add", (1,), immutable=True)
        with pytest.raises((ChordError, InvalidArguments, RemoteError)):
            chain(first, group(add.si(1, 1), bad), gather.s())().get(timeout=10)
    eventually(lambda: not _joins(vhost), within=10)


def test_a_message_cannot_name_any_queue_as_its_join(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient, ledger: Ledger
) -> None:
    raw_client.declare("orders")
    raw_client.publish("orders", b"an order")
    worker_process("-c", "2", app=APP)

    result = add.apply_async((1, 1), headers={"x-amqp-tasks-joins": [["orders", 0, 0]]})
    assert result.get(timeout=10) == 2
    eventually(lambda: raw_client.depth(QUEUE) == 0, within=10)
    assert raw_client.depth("orders") == 1


def test_an_outcome_for_a_join_that_is_gone_ends_the_join_it_comes_from(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient
) -> None:
    queue = f"{JOIN_PREFIX}inner"
    raw_client.declare(queue)
    definition = {"size": 1, "body": dict(gather.s()), "joins": [[f"{JOIN_PREFIX}gone", 0, 1]]}
    caller.transport.publish(definition_message(queue, definition))
    worker_process("-c", "1", app=APP)

    fail.apply_async(headers={JOINS_HEADER: [[queue, 0, 1]]})
    eventually(lambda: not _joins(vhost), within=15)


def test_a_group_in_a_group_of_results_ends_as_one(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)

    results = group([add.s(1, 1) | group([step.s(1), step.s(2)]), add.s(5, 5)])()
    assert sorted(map(str, results.iterate(timeout=20))) == ["10", "[3, 4]"]


@pytest.mark.parametrize(
    "step",
    [
        {"task": "add", "options": {"link_error": 5}, "kwargs": 3},
        {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": 5}},
        {"task": "celery.chain", "subtask_type": "chain", "kwargs": {"tasks": []}},
        {"task": "celery.chord", "subtask_type": "chord", "kwargs": {"header": 5}},
        {"task": "add", "options": {"link_error": 5}},
        7,
    ],
)
def test_a_step_that_is_no_signature_ends_its_workflow(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient, step: Any
) -> None:
    worker = worker_process("-c", "1", app=APP)

    properties = Properties(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, correlation_id="hostile",
        headers={"task": "add", "id": "hostile", "lang": "py"},
    )  # fmt: skip
    body = json.dumps([[1, 1], {}, {"callbacks": [step], "errbacks": None, "chain": [step], "chord": None}])
    caller.transport.publish(
        OutgoingMessage(exchange="", routing_key=QUEUE, body=body.encode(), properties=properties)
    )
    assert add.delay(2, 2).get(timeout=10) == 4
    worker.stop()
    assert raw_client.depth(QUEUE) == 0
