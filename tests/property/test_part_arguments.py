"""What is refused where a workflow is sent is what fails where it is run, for tasks and shapes of all kinds."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any
from uuid import UUID

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from amqp_tasks import App, Signature, chain, chord, group
from amqp_tasks.errors import InvalidArguments

MANY = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _plain(a: Any, b: Any = 0) -> int:
    return 0


def _keyword(a: Any, *, key: int | list[Any]) -> int:
    return 0


def _several(a: int | list[Any], *args: int | list[Any]) -> int:
    return 0


def _any_name(a: Any = 0, /, **kwargs: int) -> int:
    return 0


def _models(a: Any, b: int | list[Any] | UUID = 0) -> int:
    return 0


def _none() -> int:
    return 0


def _bound(self: Any, a: Any, b: str = "") -> int:
    return 0


def _three(a: Any, b: Any, c: Any) -> int:
    return 0


FUNCTIONS: Sequence[Callable[..., int]] = (
    _plain, _keyword, _several, _any_name, _models, _none, _three,
)  # fmt: skip

values = st.sampled_from([1, 1, [2], "text"])
names = st.sampled_from(["a", "b", "key", "more"])


@st.composite
def calls(draw: st.DrawFn) -> tuple[Any, ...]:
    name = draw(st.sampled_from([*(function.__name__ for function in FUNCTIONS), "_bound"]))
    args, kwargs = (
        draw(st.lists(values, max_size=2)),
        draw(st.dictionaries(names, values, max_size=1)),
    )
    return "call", name, args, kwargs, draw(st.booleans())


def _composed(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    several = st.lists(parts, min_size=1, max_size=2)
    return (
        st.tuples(st.just("chain"), st.lists(parts, min_size=2, max_size=3))
        | st.tuples(st.just("group"), several)
        | st.tuples(st.just("chord"), several, parts)
        | st.tuples(st.just("link"), calls(), parts)
        | st.tuples(st.just("starmap"), calls(), st.lists(st.lists(values, max_size=3), max_size=2))
    )


workflows = st.recursive(calls(), _composed, max_leaves=5)


def _app(name: str) -> App:
    app = App(name, broker=f"memory://{name}/")
    for function in FUNCTIONS:
        app.task(name=function.__name__)(function)
    app.task(name="_bound", bind=True)(_bound)

    @app.task(name="fail")
    def fail() -> None:
        raise ValueError("no")

    return app


def _part(app: App, node: tuple[Any, ...]) -> Any:
    match node:
        case ("call", name, args, kwargs, is_immutable):
            return app.tasks[name].signature(args, kwargs, immutable=is_immutable)
        case ("chain", parts):
            return chain(_part(app, part) for part in parts)
        case ("group", parts):
            return group([_part(app, part) for part in parts])
        case ("chord", members, body):
            return chord([_part(app, member) for member in members], _part(app, body))
        case ("link", call, callback):
            return _part(app, call).link(_part(app, callback))
        case ("starmap", call, items):
            # Where it follows: what a workflow begins with has the arguments of its message checked alone.
            return chain(app.tasks["_any_name"].si(), app.tasks[call[1]].starmap(items))
        case _:
            raise AssertionError(node)


def _is_refused(part: Signature) -> bool:
    try:
        part.delay()
    except InvalidArguments:
        return True
    return False


def _fails(run: Callable[[], object]) -> bool:
    """Whether it fails for its arguments: what is called as a function raises Python's own error."""
    try:
        run()
    except TypeError:
        return True
    return False


def _errback_fails(part: Signature) -> bool:
    """Whether an errback fails for its arguments, of which only the log tells."""
    told: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = told.append  # type: ignore[method-assign, assignment]
    logger = logging.getLogger("amqp_tasks.app._eager_workflows")
    logger.addHandler(handler)
    try:
        part.apply()
    finally:
        logger.removeHandler(handler)
    return any(isinstance(record.exc_info[1], TypeError) for record in told if record.exc_info)


@MANY
@given(workflows)
def test_a_workflow_is_refused_when_its_arguments_would_fail_and_only_then(node: tuple[Any, ...]) -> None:
    with _app("part-arguments") as app:
        part = _part(app, node)
        is_refused = _is_refused(part)
        app.conf.update(task_always_eager=True, task_eager_propagates=True)

        assert is_refused == _fails(part.delay)


@MANY
@given(calls())
def test_an_errback_is_refused_when_it_could_not_be_called_and_only_then(node: tuple[Any, ...]) -> None:
    with _app("part-errbacks") as app:
        part = app.tasks["fail"].s().on_error(_part(app, node))

        assert _is_refused(part) == _errback_fails(part)
