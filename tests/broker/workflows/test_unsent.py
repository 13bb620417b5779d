"""What was to follow a task and cannot be sent fails, and lies in the dead letters with the reason (U049, promise 9)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App, Workflow, chord, group
from amqp_tasks.app._account import account_of
from amqp_tasks.errors import ChordError, MessageTooLarge, PublishRefused, RemoteError, WorkflowFailed
from amqp_tasks.message import DeadLetter, OutgoingMessage, Properties
from support import Ledger, PrivateNode, RawClient, Vhost, WorkerProcesses, eventually
from support.nodes import LocalNode
from support.private import private_to_one_test
from support.workflow_app import QUEUE, add, gather, repeated, seen, step, told

APP = "support.workflow_app:app"
_NOTHING = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
SMALL = {"AMQP_TASKS_MAX_MESSAGE_BYTES": "4000", "AMQP_TASKS_WARN_MESSAGE_BYTES": "4000"}


def _assert(condition: object) -> None:
    assert condition


def _letters(app: App, count: int) -> list[DeadLetter]:
    found = app.dead_letters.find([QUEUE], bodies=True)
    assert sorted({letter.reason for letter in found}) == (["not-sent"] if count else [])
    assert len(found) == count
    return found


def _kept(app: App, count: int = 1) -> list[DeadLetter]:
    eventually(lambda: _letters(app, count), within=15)
    return _letters(app, count)


def _no_joins(vhost: Vhost) -> None:
    assert not [queue["name"] for queue in vhost.queues() if "join" in queue["name"]]


def _call_of(letter: DeadLetter) -> Any:
    assert letter.body is not None
    return json.loads(letter.body)


def _publish(app: App, **embed: Any) -> None:
    """`add(1, 1)` with what a client wrote that checks nothing."""
    properties = Properties(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, correlation_id="odd",
        headers={"task": "add", "id": "odd", "lang": "py"},
    )  # fmt: skip
    body = json.dumps([[1, 1], {}, {**_NOTHING, **embed}]).encode()
    app.transport.publish(OutgoingMessage(exchange="", routing_key=QUEUE, body=body, properties=properties))


def test_a_step_that_its_value_makes_too_large_is_kept_without_it(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP, env=SMALL)

    result = (repeated.s("x", 3900) | told.s(key="y" * 200) | seen.s("never")).delay()

    with pytest.raises((MessageTooLarge, RemoteError), match="max_message_bytes"):
        result.get(timeout=20)
    (letter,) = _kept(caller)
    first, second = result.parent.parent, result.parent
    assert (letter.id, letter.task, letter.error_type) == (second.id, "told", "MessageTooLarge")
    assert f"next of task {first.id} cannot be sent" in letter.detail
    assert _call_of(letter) == [[], {"key": "y" * 200}, _NOTHING]


def test_a_callback_with_a_wrong_option_is_kept_and_runs_by_itself_when_it_is_put_back(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP)

    _publish(caller, callbacks=[dict(seen.s("it").set(priority=3000))])

    (letter,) = _kept(caller)
    assert "callback 0 of task odd cannot be sent" in letter.detail
    assert "priority" in letter.detail
    assert letter.queue_name == QUEUE
    assert ledger.keys("seen") == []
    assert caller.dead_letters.requeue([QUEUE]).count == 1
    eventually(lambda: _assert(ledger.keys("seen") == ["it 2"]), within=10)


def test_an_option_that_a_worker_does_not_know_is_passed_over(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP)

    _publish(caller, callbacks=[dict(seen.s("it").set(prioritty=3, router="x", group_id="g"))])

    eventually(lambda: _assert(ledger.keys("seen") == ["it 2"]), within=15)


def test_what_is_kept_is_accepted_in_the_account(caller: App, worker_process: WorkerProcesses) -> None:
    worker = worker_process("-c", "1", app=APP)

    _publish(caller, callbacks=[dict(seen.s("it").set(priority=3000))])  # which is not counted as ours
    _kept(caller)
    worker.stop()

    assert _counted(caller) == {"accepted": 1, "done": 1}


def _counted(app: App) -> dict[str, int]:
    counts = account_of(app, None).counts
    return {kind: count for kind, count in (counts or {}).items() if count}


@pytest.mark.parametrize("part", [7, {"task": "", "args": []}, {"task": "seen", "args": 5}])
def test_what_is_no_signature_is_kept_as_it_is_shown(
    caller: App, worker_process: WorkerProcesses, part: Any
) -> None:
    worker_process("-c", "1", app=APP)

    _publish(caller, chain=[part])

    (letter,) = _kept(caller)
    assert letter.task == "no signature"
    assert letter.argsrepr == repr(part)


def test_the_body_of_a_chord_that_cannot_be_sent_is_kept_in_the_queue_of_its_last_member(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, ledger: Ledger
) -> None:
    worker_process("-c", "1", app=APP, env=SMALL)

    members = [gather.s(["x" * 1500]) for _ in range(3)]
    result = chord(members, gather.s("it").on_error(told.s("errback")))()

    with pytest.raises((MessageTooLarge, RemoteError), match="max_message_bytes"):
        result.get(timeout=20)
    (letter,) = _kept(caller)
    assert letter.id == result.id
    assert "body of amqp_tasks.join." in letter.detail
    eventually(lambda: _no_joins(vhost), within=10)
    eventually(lambda: _assert(ledger.keys("told") == ["errback"]), within=10)


@pytest.fixture
def keepless(caller: App) -> Iterator[App]:
    """A caller without dead letters."""
    caller.conf.update(task_dead_letter_queues=False)
    yield caller
    caller.conf.update(task_dead_letter_queues=True)


def test_without_dead_letters_nothing_is_kept(
    keepless: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "1", app=APP, env={**SMALL, "AMQP_TASKS_TASK_DEAD_LETTER_QUEUES": "false"})

    result = (repeated.s("x", 3900) | told.s(key="y" * 200)).delay()

    with pytest.raises((MessageTooLarge, RemoteError), match="max_message_bytes"):
        result.get(timeout=20)
    assert add.delay(1, 1).get(timeout=10) == 2
    assert [queue["name"] for queue in vhost.queues() if queue["name"].endswith(".dead")] == []


@pytest.fixture
def forbidding(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost, raw_client: RawClient
) -> RawClient:
    """A worker that may not write to the exchange `closed`."""
    raw_client.channel.exchange_declare("closed")
    url = vhost.limited_url(configure=".*", read=".*", write="^(?!closed$).*$")
    worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": url})
    return raw_client


def test_a_step_for_an_exchange_that_may_not_be_written_to_fails_at_once(
    caller: App, forbidding: RawClient
) -> None:
    result = (add.s(1, 1) | step.s(1).set(exchange="closed", routing_key="x")).delay()

    with pytest.raises(PublishRefused, match="403"):
        result.get(timeout=20)
    (letter,) = _kept(caller)
    assert (letter.id, letter.error_type) == (result.id, "PublishRefused")
    assert _call_of(letter) == [[2, 1], {}, _NOTHING]
    eventually(lambda: _assert(forbidding.depth(QUEUE) == 0), within=10)
    assert add.delay(1, 1).get(timeout=10) == 2


def test_a_member_that_is_refused_fails_its_chord_and_the_others_run(
    caller: App, forbidding: RawClient, vhost: Vhost
) -> None:
    members = [step.s(1), step.s(2).set(exchange="closed", routing_key="x")]
    result = (add.s(1, 1) | group(members) | gather.s("it")).delay()

    with pytest.raises(ChordError, match="PublishRefused"):
        result.get(timeout=20)
    assert result.parent is not None
    assert result.parent.results[0].get(timeout=10) == 3
    _kept(caller)
    eventually(lambda: _no_joins(vhost), within=10)


def test_a_named_step_that_is_refused_ends_what_needs_it(
    caller: App, forbidding: RawClient, vhost: Vhost
) -> None:
    workflow = Workflow().step("a", add.s(1, 1)).step("b", add.s(1, 1))
    workflow.step("c", gather.si([1]).set(exchange="closed", routing_key="x"), after=["a", "b"])
    workflow.step("d", add.s(1, 1)).step("last", gather.si([1]), after=["c", "d"])
    result = workflow.delay()

    with pytest.raises(WorkflowFailed) as caught:
        result.get(timeout=20)

    assert isinstance(caught.value.failed["c"], PublishRefused)
    assert caught.value.not_run == ("last",)
    _kept(caller)
    eventually(lambda: _no_joins(vhost), within=10)
    assert caller.workflows.failed_steps(result.id) == []


@pytest.fixture(scope="module")
def _small_node() -> Iterator[LocalNode]:
    node = LocalNode({"max_message_size": "20000"})
    try:
        node.start()
        yield node
    finally:
        node.remove()


@pytest.fixture
def small_broker(_small_node: LocalNode, caller: App) -> Iterator[PrivateNode]:
    """A broker that takes at most 20,000 bytes."""
    with private_to_one_test(_small_node) as node:
        caller.conf.update(broker_url=node.url)
        yield node
        caller.resources.close(timeout=5.0)


def test_a_step_that_is_too_large_for_the_broker_fails_at_once_and_is_kept_without_arguments(
    small_broker: PrivateNode, caller: App, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": small_broker.url})

    result = (repeated.s("x", 19_000) | told.s(key="y" * 2_000)).delay()

    with pytest.raises(MessageTooLarge, match="max_message_size"):
        result.get(timeout=20)
    (letter,) = _kept(caller)
    assert letter.id == result.id
    assert _call_of(letter)[:2] == [[], {}]
    assert add.delay(1, 1).get(timeout=10) == 2


def test_an_outcome_that_is_too_large_for_the_broker_fails_its_join_at_once(
    small_broker: PrivateNode, caller: App, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", app=APP, env={"AMQP_TASKS_BROKER_URL": small_broker.url})
    result = chord([add.s(1, 1), repeated.s("x", 30_000)], gather.s("it"))()

    with pytest.raises(ChordError, match="max_message_size"):
        result.get(timeout=20)
    eventually(lambda: _no_joins(small_broker.vhost), within=10)
