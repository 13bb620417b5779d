"""Named steps run in the caller: `apply()` and `task_always_eager` give what workers give."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App, Workflow, WorkflowResult
from amqp_tasks.errors import ConfigurationError, InvalidArguments, StepNotRun, WorkflowFailed

told: list[Any] = []


@pytest.fixture
def app() -> Iterator[App]:
    told.clear()
    with App("eager-steps", broker="memory://") as made:

        @made.task(name="add")
        def add(x: int, y: int = 0) -> int:
            return x + y

        @made.task(name="fail")
        def fail(*args: Any) -> None:
            raise ValueError("no")

        @made.task(name="told")
        def tell(task_id: str) -> None:
            told.append(task_id)

        yield made


def diamond(app: App, left: Any = None) -> Workflow:
    add = app.tasks["add"]
    workflow = Workflow().step("top", add.s(1)).step("left", left or add.s(10), after="top")
    return workflow.step("right", add.s(100), after="top").step("bottom", add, after=["left", "right"])


def test_steps_get_the_values_of_those_that_they_need(app: App) -> None:
    result = diamond(app).apply((1,))

    assert isinstance(result, WorkflowResult)
    assert result.get() == {"top": 2, "left": 12, "right": 102, "bottom": 114}
    assert result["left"].get() == 12
    assert (result.state, result.successful(), result.ready(), len(result)) == ("SUCCESS", True, True, 4)


def test_what_needs_a_failed_step_is_not_run_and_all_else_is(app: App) -> None:
    workflow = diamond(app, left=app.tasks["fail"].s()).step("last", app.tasks["add"].s(1), after="bottom")

    result = workflow.on_error(app.tasks["told"].s()).apply((1,))

    assert result.states == {
        "top": "SUCCESS", "left": "FAILURE", "right": "SUCCESS", "bottom": "NOT_RUN", "last": "NOT_RUN",
    }  # fmt: skip
    assert result.state == "FAILURE"
    assert told == [result["left"].id]
    with pytest.raises(WorkflowFailed) as caught:
        result.get()
    error = caught.value
    assert (list(error.failed), error.not_run, error.succeeded) == (
        ["left"], ("bottom", "last"), ("top", "right"),
    )  # fmt: skip
    assert isinstance(error.failed["left"], ValueError)
    assert pickle.loads(pickle.dumps(error)).not_run == error.not_run
    values = result.get(propagate=False)
    assert isinstance(values["last"], StepNotRun)
    assert "step 'left' has failed: ValueError: no" in str(values["last"])


def test_the_graph_shows_steps_and_states_in_each_form(app: App) -> None:
    graph = diamond(app, left=app.tasks["fail"].s()).apply((1,)).graph()

    assert graph.states["bottom"] == "NOT_RUN"
    assert graph.edges == (
        ("top", "left"), ("top", "right"), ("left", "bottom"), ("right", "bottom"),
    )  # fmt: skip
    assert graph.text().splitlines() == [
        "top: SUCCESS", "  left: FAILURE", "    bottom: NOT_RUN", "  right: SUCCESS", "    bottom: NOT_RUN",
    ]  # fmt: skip
    assert str(graph) == graph.text()
    assert '"left" [label="left: FAILURE", style=filled, fillcolor=salmon];' in graph.dot()
    assert '"left" -> "bottom";' in graph.dot()
    assert '  t0["top: SUCCESS"]' in graph.mermaid()


def test_an_immutable_step_gets_nothing(app: App) -> None:
    add = app.tasks["add"]

    assert Workflow().step("a", add.s(1)).step("b", add.si(5), after="a").apply().get() == {"a": 1, "b": 5}


def test_eager_calls_raise_what_a_step_raises(app: App) -> None:
    app.conf.update(task_always_eager=True, task_eager_propagates=True)

    assert diamond(app).delay(1).get()["bottom"] == 114
    assert diamond(app)(1).get()["bottom"] == 114
    with pytest.raises(ValueError, match="no"):
        Workflow().step("a", app.tasks["fail"].s()).delay()


def test_arguments_that_cannot_fit_are_refused_before_anything_runs(app: App) -> None:
    workflow = Workflow().step("a", app.tasks["told"].s("ran")).step("b", app.tasks["add"].s(1, 2), after="a")

    with pytest.raises(InvalidArguments, match=r"step 'b': .*first it gets what a gave"):
        workflow.apply()

    assert told == []


def test_an_unknown_option_is_refused_with_the_step(app: App) -> None:
    with pytest.raises(ConfigurationError, match=r"step 'a': .*'countdwn'"):
        Workflow().step("a", app.tasks["add"].s(1).set(countdwn=1)).apply()


def test_what_ran_here_cannot_be_resumed(app: App) -> None:
    with pytest.raises(ConfigurationError, match="run it anew"):
        diamond(app).apply((1,)).resume()
