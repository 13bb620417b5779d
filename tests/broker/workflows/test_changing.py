"""Workflows that change while they run, and looking at their results (S099, S114, P047, P canvas)."""

from __future__ import annotations

import pytest

from amqp_tasks import App, AsyncResult, GroupResult, Workflow, chain, chord, group
from amqp_tasks.errors import (
    ChordError,
    ConfigurationError,
    IncompleteStream,
    Replaced,
    ResultTimeout,
    TaskError,
    WorkflowFailed,
)
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.workflow_app import (
    CARD,
    QUEUE,
    add,
    charging,
    fail,
    gather,
    ignored,
    joined,
    joined_and_replaced,
    replaced,
    seen,
    shown,
    step,
    told,
)

APP = "support.workflow_app:app"


def test_what_replaces_a_task_has_its_id_its_place_and_what_follows_it(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    simple = replaced.apply_async((0, add.s(2, 2)), link=seen.s("after"))
    assert simple.get(timeout=10) == 4
    eventually(lambda: ledger.keys("seen") == ["after 4"], within=10)
    by_chain = chain(add.s(1, 1), replaced.s(add.s(3, 4) | step.s(1)), step.s(100))
    assert by_chain().get(timeout=10) == 108
    by_group = chord([replaced.s(0, group(add.s(1, 1), add.s(2, 2))), add.s(5, 5)], gather.s())
    assert by_group().get(timeout=10) == [[2, 4], 10]
    by_end = replaced.apply_async((0, add.s(1, 1) | group(step.s(10), step.s(20))), link=seen.s("list"))
    assert by_end.get(timeout=10) == [12, 22]
    eventually(lambda: ledger.keys("seen") == ["after 4", "list [12, 22]"], within=10)
    by_chord = chain(replaced.s(0, chord([add.s(1, 1), add.s(2, 2)], gather.s())), step.s(1))
    assert by_chord().get(timeout=10) == 7
    twice = replaced.s(0, replaced.s(0, shown.s(1)))
    assert twice.delay().get(timeout=10)["nesting"] == 2
    with pytest.raises(ValueError, match="no"):
        replaced.apply_async((0, fail.s()), link_error=told.s("replaced")).get(timeout=10)
    eventually(lambda: ledger.keys("told") == ["replaced"], within=10)


def test_a_task_that_is_called_as_a_function_is_not_replaced() -> None:
    with pytest.raises(ConfigurationError, match="called as a function"):
        replaced(0, dict(add.s(1, 1)))
    eager = replaced.apply((0, dict(add.s(1, 1))))
    assert eager.get() == 2
    with pytest.raises(Replaced, match="replaced by add"):
        raise Replaced(add.s(1, 1))


def test_a_member_adds_members_to_its_chord(
    caller: App, worker_process: WorkerProcesses, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)

    result = chord([joined.s(1, 2), add.s(2, 2), joined.s(3, 1)], gather.s())()
    values = result.get(timeout=20)
    assert values[:3] == [1, 4, 3]
    assert sorted(values[3:]) == [10, 10, 11]
    with pytest.raises(ConfigurationError, match="in the header of no chord"):
        joined.delay(1, 1).get(timeout=10)


def test_neither_the_log_nor_a_refusal_shows_the_arguments_of_a_signature(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1", app=APP)

    assert charging.delay("replace").get(timeout=10) == len(CARD)
    with pytest.raises(ConfigurationError, match="takes a signature of one task, got a group"):
        charging.delay("add-group").get(timeout=10)
    with pytest.raises(WorkflowFailed, match="make 'charge' a step of its own") as caught:
        Workflow().step("one", charging.s("add")).delay().get(timeout=10)
    worker.wait_output("replaced: replaced by charge")

    assert CARD not in f"{caught.value}{worker.output}"


def test_a_step_that_others_follow_adds_no_members_to_its_chord(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "2", app=APP)

    assert chord([chain(add.s(1, 1), joined.s(1)), add.s(2, 2)], gather.s())().get(timeout=10) == [2, 4, 10]
    with pytest.raises(ChordError, match="last of them is the member"):
        chord([chain(joined.s(1, 1), step.s(1)), add.s(2, 2)], gather.s())().get(timeout=10)


def test_a_member_that_has_added_members_is_not_replaced(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "2", app=APP)

    with pytest.raises(ChordError, match="call add_to_chord in the task that takes its place"):
        chord([joined_and_replaced.s(), add.s(2, 2)], gather.s())().get(timeout=20)


def test_a_task_that_ignores_itself_ends_its_workflow(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)

    with pytest.raises(ChordError, match="ignored"):
        chord([add.s(1, 1), ignored.s()], gather.s())().get(timeout=10)
    with pytest.raises(TaskError, match="ignored"):
        chain(ignored.s(), step.s(1))().get(timeout=10)


def test_our_own_headers_are_no_headers_of_the_user(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)

    (told_of,) = chord([shown.s(1)], gather.s())().get(timeout=10)
    assert told_of["headers"] == {}
    assert told_of["group"]


def test_results_come_in_the_order_in_which_tasks_end(caller: App, worker_process: WorkerProcesses) -> None:
    results = group([fail.s(), add.s(1, 1), add.s(2, 2)])()
    assert isinstance(results, GroupResult)
    with pytest.raises(ResultTimeout, match="0 of 3"):
        next(results.as_completed(timeout=0.1))
    worker_process("-c", "2", app=APP)

    assert {result.id for result in results.as_completed(timeout=10)} == {result.id for result in results}
    values = list(results.iterate(timeout=10, propagate=False))
    assert sorted(value for value in values if isinstance(value, int)) == [2, 4]
    with pytest.raises(ValueError, match="no"):
        list(results.iterate(timeout=10))
    assert (results.completed_count(), results.failed(), results.successful()) == (2, True, False)


def test_what_followed_a_task_can_be_walked_through(caller: App, worker_process: WorkerProcesses) -> None:
    result = chain(add.s(1, 1), group(step.s(1), step.s(2)), gather.s())()
    first = result.parent
    assert isinstance(first, GroupResult)
    first = first.parent
    assert isinstance(first, AsyncResult)
    with pytest.raises(IncompleteStream, match=first.id):
        list(first.iterdeps())
    worker_process("-c", "2", app=APP)
    assert result.get(timeout=10) == [3, 4]

    assert sorted(str(value) for _, value in first.collect()) == ["2", "3", "4"]
    pair = chain(add.s(1, 1), step.s(5))()
    assert pair.get(timeout=10) == 7
    assert isinstance(pair.parent, AsyncResult)
    assert pair.parent.get_leaf(timeout=10) == 7


def test_a_workflow_is_drawn_with_its_states(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    result = chain(add.s(1, 1), group(step.s(1), fail.s()), gather.s())()
    assert isinstance(result, AsyncResult)
    before = result.graph()
    assert set(before.states.values()) == {"PENDING"}
    assert (len(before.states), len(before.edges), len(before.roots)) == (4, 4, 1)
    worker_process("-c", "2", app=APP)
    with pytest.raises(ChordError):
        result.get(timeout=10)

    graph = result.graph()
    assert sorted(graph.states.values()) == ["FAILURE", "FAILURE", "SUCCESS", "SUCCESS"]
    lines = graph.text().splitlines()
    assert lines[0].startswith("add ")
    assert lines[0].endswith(": SUCCESS")
    assert [len(line) - len(line.lstrip()) for line in lines] == [0, 2, 4, 2, 4]
    assert graph.dot().startswith("digraph")
    assert graph.dot().count("->") == 4
    assert graph.mermaid().count("-->") == 4
    assert raw_client.depth(QUEUE) == 0
