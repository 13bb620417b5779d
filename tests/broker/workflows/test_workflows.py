"""Workflows through RabbitMQ and worker processes (S085, S086, S114-S123, P canvas)."""

from __future__ import annotations

import json
from typing import Any

import pytest

from amqp_tasks import App, AsyncResult, GroupResult, chain, chord, group
from amqp_tasks.errors import ChordError, ResultUnavailable
from support import Ledger, RawClient, Vhost, WorkerProcesses, eventually
from support.workflow_app import (
    QUEUE,
    add,
    add_later,
    again,
    explained,
    fail,
    gather,
    numbers,
    raise_in_errback,
    seen,
    sender,
    step,
    told,
)

APP = "support.workflow_app:app"


def test_signatures_chains_groups_and_chords_give_what_their_tasks_give(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "2", app=APP)

    assert add.s(2).delay(2).get(timeout=10) == 4
    assert (
        caller.signature("add", (2,), immutable=False).apply_async((3,), countdown=0.1).get(timeout=10) == 5
    )
    assert chain(add.s(4, 4), add.s(8))().get(timeout=10) == 16
    assert (add.s(4, 4) | add.si(1, 1)).delay().get(timeout=10) == 2
    assert group(add.s(i, i) for i in range(5))().get(timeout=10) == [0, 2, 4, 6, 8]
    assert chord([add.s(i, i) for i in range(5)])(gather.s()).get(timeout=10) == [0, 2, 4, 6, 8]
    assert (group(add.s(1, 1)) | gather.s()).delay().get(timeout=10) == [2]
    assert chord([], gather.s())().get(timeout=10) == []
    assert caller.signature(group([]))().get(timeout=10) == []
    assert add.starmap([(1, 1), (2, 2)]).delay().get(timeout=10) == [2, 4]
    assert step.map([1, 2]).delay().get(timeout=10) == [1, 2]
    assert add.chunks(zip(range(5), range(5), strict=True), 2)().get(timeout=10) == [[0, 2], [4, 6], [8]]


def test_one_message_for_many_items_runs_coroutines_too(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "1", app=APP)

    assert add_later.map([1, 2]).delay().get(timeout=10) == [2, 3]
    assert add_later.chunks([(1, 1), (2, 2), (3, 3)], 2)().get(timeout=10) == [[2, 4], [6]]


@pytest.mark.timeout(180)
def test_the_body_of_a_chord_of_ten_thousand_gets_all_values_in_order(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "2", app=APP)

    big = chord([add.s(number, 1) for number in range(10_000)], gather.s())()

    assert big.get(timeout=120) == list(range(1, 10_001))


def test_workflows_nest_to_any_depth(
    caller: App, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    worker_process("-c", "2", app=APP)
    inner = chord([step.s(1), step.s(2)], step.s(3))

    nested = chain(add.s(1, 1), group(step.s(1), chain(step.s(2), step.s(2)), inner), gather.s(), step.s(100))
    assert nested().get(timeout=20) == 100 + (3 + 6 + (3 + 4 + 3))
    ends_in_group = chord([chain(add.s(1, 1), group(step.s(1), step.s(2))), add.s(5, 5)], gather.s())
    assert ends_in_group().get(timeout=20) == [[3, 4], 10]
    of_chords = chord([chord([add.s(i, j) for j in range(2)], gather.s()) for i in range(2)], gather.s())
    assert of_chords().get(timeout=20) == [[0, 1], [1, 2]]
    groups_in_a_row = group(add.s(1, 1), add.s(2, 2)) | group(step.s(1), step.s(2))
    assert isinstance(last := groups_in_a_row(), GroupResult)
    assert last.get(timeout=20) == [7, 8]


def test_workers_of_its_members_queue_are_enough_for_a_workflow(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "1", "-Q", "other", app=APP)

    inner = chain(add.s(1, 1), group(step.s(1).set(queue="other"), step.s(2).set(queue="other")))
    members = [inner.set(queue="other"), add.s(5, 5).set(queue="other")]
    assert chord(members, gather.s().set(queue="other"))().get(timeout=10) == [[3, 4], 10]


def test_results_know_what_was_before_them(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)

    result = chain(add.s(1, 1), group(step.s(1), step.s(2)), gather.s())()
    assert result.get(timeout=10) == [3, 4]

    header = result.parent
    assert isinstance(header, GroupResult)
    assert header.get(timeout=10) == [3, 4]
    assert isinstance(header.parent, AsyncResult)
    assert header.parent.get(timeout=10) == 2
    assert result.root is header.root is header.parent.root is header.parent
    assert json.loads(json.dumps(result.as_tuple()))[0][0] == result.id


def test_callbacks_get_the_result_and_are_children(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    result = add.apply_async((2, 2), link=[seen.s("a"), seen.si("no", "b")])
    assert result.get(timeout=10) == 4

    eventually(lambda: sorted(ledger.keys("seen")) == ["a 4", "b no"], within=10)
    assert len(result.children) == 2
    linked = chain(add.s(1, 1), add.s(1)).link(seen.s("end"))
    assert linked().get(timeout=10) == 3
    eventually(lambda: "end 3" in ledger.keys("seen"), within=10)


def test_errbacks_of_a_call_of_several_come_to_those_that_they_have(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    group(fail.s().on_error(told.s("own")), add.s(1, 1)).apply_async(link_error=told.s("call"))
    eventually(lambda: sorted(ledger.keys("told")) == ["call", "own"], within=10)
    body = gather.s().on_error(told.s("body"))
    chord([fail.s(), add.s(1, 1)], body).apply_async(link_error=told.s("chord"))
    flow = chain(fail.s(), step.s(1)).on_error(told.s("flow"))
    flow.apply_async(link_error=told.s("late"))
    everything = ["body", "call", "chord", "flow", "late", "own"]
    eventually(lambda: sorted(ledger.keys("told")) == everything, within=10)


def test_what_a_task_sends_as_a_workflow_are_its_children(
    caller: App, worker_process: WorkerProcesses
) -> None:
    worker_process("-c", "2", app=APP)

    result = sender.delay()
    begun = result.get(timeout=10)
    assert len(begun) == 3
    assert [child.id for child in result.children] == begun


def test_a_part_whose_result_goes_elsewhere_says_where(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)

    result = (add.s(1, 1) | step.s(1).set(reply_to="elsewhere")).delay()
    with pytest.raises(ResultUnavailable, match="reply_to='elsewhere'"):
        result.get(timeout=10)


def test_errbacks_run_once_and_one_that_fails_stops_no_other(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    result = fail.apply_async(link_error=[raise_in_errback.s(), explained.s(), told.s("task")])
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=10)

    eventually(lambda: ledger.keys("told") == ["task"], within=10)
    assert ledger.keys("explained") == [f"{result.id} ValueError"]


def test_a_failed_step_ends_the_rest_of_its_chain(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    flow = chain(add.s(1, 1), fail.s(), group(step.s(1), step.s(2)), gather.s("never"))
    result = flow.on_error(told.s("chain"))()
    with pytest.raises(ValueError, match="no"):
        result.get(timeout=10)

    header = result.parent
    assert isinstance(header, GroupResult)
    for member in header:
        with pytest.raises(ValueError, match="no"):
            member.get(timeout=10)
    eventually(lambda: ledger.keys("told") == ["chain"], within=10)
    assert ledger.keys("gather") == []


def test_a_failed_member_fails_the_body_once_when_all_have_ended(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger, vhost: Vhost
) -> None:
    worker_process("-c", "2", app=APP)

    members = [add.s(1, 1), fail.s(), fail.s(), chain(fail.s(), add.s(1)), caller.signature("unknown")]
    result = chord(members, chain(gather.s("never"), step.s(1)).on_error(told.s("body")))()
    with pytest.raises(ChordError, match=r"Dependency .* raised ValueError"):
        result.get(timeout=20)

    eventually(lambda: ledger.keys("told") == ["body"], within=10)
    assert ledger.keys("gather") == []
    eventually(lambda: _joins(vhost) == [], within=10)


def test_an_errback_of_a_body_that_is_not_run_is_told_whose_it_is(
    caller: App, worker_process: WorkerProcesses, ledger: Ledger
) -> None:
    worker_process("-c", "2", app=APP)

    result = chord([add.s(1, 1), fail.s()], gather.s("never").on_error(explained.s()))()
    with pytest.raises(ChordError):
        result.get(timeout=20)

    eventually(lambda: ledger.keys("explained") == [f"{result.id} ChordError"], within=10)


def test_a_retried_member_stays_in_its_chord(caller: App, worker_process: WorkerProcesses) -> None:
    """U050."""
    worker_process("-c", "2", app=APP)

    assert chord([again.s(1, 1), add.s(1, 1)], gather.s())().get(timeout=20) == [2, 2]


def test_a_group_reads_a_generator_as_it_sends(caller: App, worker_process: WorkerProcesses) -> None:
    worker_process("-c", "2", app=APP)

    assert group(numbers(300))().get(timeout=20) == [2 * n for n in range(300)]


def test_no_queue_is_left_behind(caller: App, worker_process: WorkerProcesses, vhost: Vhost) -> None:
    worker_process("-c", "2", app=APP)

    for _ in range(3):
        flow = (
            group(chord([add.s(1, 1), add.s(2, 2)], step.s(0)), chord([add.s(3, 3)], step.s(0))) | gather.s()
        )
        assert flow().get(timeout=20) == [6, 6]

    eventually(lambda: _joins(vhost) == [], within=10)


def _joins(vhost: Vhost) -> list[Any]:
    return [queue for queue in vhost.queues() if queue["name"].startswith("amqp_tasks.join")]


def test_a_message_grows_with_what_is_left_of_the_workflow_and_no_faster(
    caller: App, raw_client: RawClient
) -> None:
    """U058: the definition of what follows travels once, not with each member."""

    def bytes_of(chords: int) -> int:
        flow: Any = add.s(1, 1)
        for _ in range(chords):
            flow = flow | group(step.s(1), step.s(2)) | gather.s()
        flow.delay()
        return sum(len(message.body) for message in raw_client.drain(QUEUE))

    small, large = bytes_of(10), bytes_of(20)
    assert large < 2.2 * small
