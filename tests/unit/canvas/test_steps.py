"""Named steps: what is refused before anything is sent, and what sending them begins with (B055)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from typing import Any

import pytest

from amqp_tasks import Workflow, chain
from amqp_tasks.canvas import Gathering, Join, Message, Signature, freeze_steps, launch_steps
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import StepMark, read_mark


def call(*args: object, **options: object) -> Signature:
    return Signature("t", args, options=options)


def begin(workflow: Workflow, *args: object) -> tuple[dict[str, Message], list[Gathering]]:
    """The messages by the names of their steps, and the gatherings."""
    numbers = count(1)

    def further(_: Signature) -> Mapping[str, Any]:
        return {"reply_to": "replies"}

    frozen = freeze_steps(workflow.ordered(), "w", lambda: f"id-{next(numbers)}", further)
    plan = list(launch_steps(frozen, "w", args))
    return (
        {name_of(item): item for item in plan if isinstance(item, Message)},
        [item for item in plan if isinstance(item, Gathering)],
    )


def name_of(message: Message) -> str:
    mark = read_mark(message.call.options["headers"])
    assert mark is not None
    return mark.step


def names(found: list[Any]) -> list[str]:
    marks = [read_mark(each["options"]["headers"]) for each in found]
    return [mark.step for mark in marks if mark is not None]


def test_a_step_that_is_all_that_waits_for_another_travels_with_it() -> None:
    workflow = Workflow().step("a", call()).step("b", call(), after="a").step("c", call(), after=["b"])

    messages, gatherings = begin(workflow)

    assert gatherings == []
    assert list(messages) == ["a"]
    assert names(list(messages["a"].rest)) == ["c", "b"]
    assert messages["a"].joins == ()


def test_steps_that_wait_for_the_same_steps_wait_in_one_gathering() -> None:
    workflow = Workflow().step("a", call()).step("b", call())
    workflow.step("c", call(), after=["a", "b"]).step("d", call(), after=["a", "b"]).step(
        "e", call(), after="d"
    )

    messages, (gathering,) = begin(workflow)

    assert [name_of(step) for step in gathering.steps] == ["c", "d"]
    assert names(list(gathering.steps[1].rest)) == ["e"]
    assert gathering.size == 2
    assert [messages[name].joins for name in ("a", "b")] == [
        (Join(queue=gathering.queue, index=index, size=2),) for index in range(2)
    ]


def test_the_end_of_what_travels_together_tells_the_gathering_behind_it() -> None:
    workflow = Workflow().step("a", call()).step("b", call(), after="a").step("c", call())
    workflow.step("d", call(), after=["c", "b"])

    messages, (gathering,) = begin(workflow)

    assert messages["a"].joins == (Join(queue=gathering.queue, index=1, size=2),)
    assert messages["c"].joins == (Join(queue=gathering.queue, index=0, size=2),)


def test_a_gathering_knows_what_it_waits_for_and_where_that_waits_itself() -> None:
    workflow = (
        Workflow().step("a", call(queue="early")).step("b", call()).step("ab", call(), after=["a", "b"])
    )
    workflow.step("next", call(), after="ab").step("c", call(reply_to=""))
    workflow.step("last", call(), after=["next", "c"])

    _, (first, second) = begin(workflow)

    assert [(needed.name, needed.behind) for needed in second.needs] == [("next", first.queue), ("c", "")]
    assert [places for _, places in second.needs[0].members] == ["replies", "replies"]
    assert [places for _, places in second.needs[1].members] == [""]
    assert second.where.options["queue"] == "early"


def test_steps_that_follow_one_step_side_by_side_wait_in_one_gathering() -> None:
    workflow = Workflow().step("a", call())
    for number in range(50):
        workflow.step(f"b{number}", call(), after="a")

    messages, (gathering,) = begin(workflow)

    assert len(gathering.steps) == 50
    assert len(messages["a"].joins) == 1


def test_the_first_steps_get_the_arguments_of_the_call() -> None:
    workflow = Workflow().step("a", call(1)).step("b", call(2)).step("c", call(3), after=["a", "b"])

    messages, (gathering,) = begin(workflow, "given")

    assert [messages[name].call.args for name in ("a", "b")] == [("given", 1), ("given", 2)]
    assert gathering.steps[0].call.args == (3,)


def test_messages_grow_with_what_is_left_and_no_faster() -> None:
    def size(layers: int) -> int:
        workflow = Workflow()
        before: list[str] = []
        for layer in range(layers):
            here = [f"s{layer}-{number}" for number in range(3)]
            for name in here:
                workflow.step(name, call(), after=before)
            before = here
        messages, gatherings = begin(workflow)
        return sum(len(repr(item)) for item in (*messages.values(), *gatherings))

    # Twice as many layers: twice as much in all, but for the digits of the numbers.
    assert size(40) < 2.1 * size(20)


def test_steps_say_which_they_are_beside_headers_of_their_own() -> None:
    messages, _ = begin(Workflow().step("a", call(headers={"mine": 1})))

    assert messages["a"].call.options["headers"] == {
        "mine": 1,
        **StepMark(workflow_id="w", step="a", joins=0).header,
    }


def test_steps_may_be_named_before_they_are_there() -> None:
    workflow = Workflow().step("c", call(), after=["b"]).step("b", call(), after=["a"]).step("a", call())

    assert [step.name for step in workflow.ordered()] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (lambda w: w.step("a", call()), "has a step 'a' already"),
        (lambda w: w.step("", call()), "1 to 100 letters"),
        (lambda w: w.step('x"]', call()), "1 to 100 letters"),
        (lambda w: w.step(3, call()), "1 to 100 letters"),
        (lambda w: w.step("b", call(), after=["a", "a"]), "names 'a' twice"),
        (lambda w: w.step("b", chain(call(), call())), "must be one task, got a chain"),
        (lambda w: w.step("b", 7), "must be a signature"),
    ],
)
def test_a_step_that_cannot_be_is_refused_when_it_is_added(
    build: Callable[[Workflow], object], said: str
) -> None:
    workflow = Workflow().step("a", call())

    with pytest.raises(ConfigurationError, match=said):
        build(workflow)

    assert list(workflow.steps) == ["a"]


@pytest.mark.parametrize(
    ("after", "said"),
    [
        ({"a": ["x"]}, r"'a' is after 'x', which is no step of the workflow \(its steps: a\)"),
        ({"a": ["a"]}, "a after a"),
        ({"a": [], "b": ["d", "a"], "c": ["b"], "d": ["c"]}, "b after d after c after b"),
        ({}, "at least one step"),
    ],
)
def test_steps_that_cannot_run_are_refused_before_anything_is_sent(
    after: Mapping[str, list[str]], said: str
) -> None:
    workflow = Workflow()
    for name, needed in after.items():
        workflow.step(name, call(), after=needed)

    with pytest.raises(ConfigurationError, match=said):
        workflow.ordered()


def test_a_step_that_too_many_gatherings_wait_for_is_refused() -> None:
    workflow = Workflow().step("a", call())
    for number in range(257):
        workflow.step(f"x{number}", call()).step(f"y{number}", call(), after=["a", f"x{number}"])

    with pytest.raises(ConfigurationError, match="step 'a' is needed in 257 different combinations"):
        begin(workflow)


def test_two_steps_with_one_id_are_refused() -> None:
    with pytest.raises(ConfigurationError, match="steps 'a' and 'b' have the same task_id 'same'"):
        begin(Workflow().step("a", call(task_id="same")).step("b", call(task_id="same")))


def test_an_id_that_names_no_queue_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="at most 200"):
        Workflow(id="x" * 201)


def test_a_workflow_without_a_sender_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqp_tasks.canvas._signature.others", [])

    with pytest.raises(ConfigurationError, match="nobody is known who could send"):
        Workflow().step("a", call()).delay()
