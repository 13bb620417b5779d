"""Which errbacks are called in place and which are sent, by workers and by callers, and that none stops another."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest

from amqp_tasks import App, Task, chain, chord, group
from amqp_tasks.app._errbacks import separate
from amqp_tasks.message import OutgoingMessage, Properties
from support import eventually
from support.apps import add_workflow_tasks
from support.inside import running

told: list[tuple[Any, ...]] = []


@pytest.fixture
def app() -> Iterator[App]:
    """An app with errbacks, and a worker in a thread."""
    told.clear()
    with App("errbacks", broker=f"memory://{uuid4()}/", task_default_queue="work") as made:
        add_workflow_tasks(made)

        @made.task(name="tell")
        def tell(task_id: str, tag: str = "", level: int = 1) -> None:
            told.append(("tell", task_id, tag, level))

        @made.task(name="explain")
        def explain(request: Any, error: Exception, traceback: str | None) -> None:
            told.append(("explain", request.id))

        @made.task(name="note")
        def note(task_id: str, *, tag: str = "") -> None:
            told.append(("note", task_id, tag))

        @made.task(name="bound", bind=True)
        def bound(self: Task[..., Any], task_id: str, tag: str = "") -> None:
            told.append(("bound", task_id))

        @made.task(name="angry")
        def angry(request: Any, error: Exception, traceback: str | None) -> None:
            raise KeyError("angry")

        @made.task(name="leaving")
        def leaving(request: Any, error: Exception, traceback: str | None) -> None:
            raise SystemExit

        class Written(Task[..., Any]):
            name = "written"

            def run(self, task_id: str, tag: str = "") -> None:
                told.append(("written", task_id))

        made.register_task(Written())
        with running(made, pool="threads", concurrency=1):
            yield made


def _are(found: Any, expected: Any) -> None:
    assert found == expected


def _failed(app: App, errbacks: Any, *, is_eager: bool = False) -> str:
    """The id of a task that has failed, with these errbacks."""
    fail = app.tasks["fail"]
    call = fail.apply if is_eager else fail.apply_async
    return call(link_error=errbacks).id


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize("name", ["bound", "written"])
def test_an_errback_that_gets_the_task_itself_is_a_task_of_its_own_with_the_id(
    app: App, name: str, is_eager: bool
) -> None:
    task_id = _failed(app, app.tasks[name].s(), is_eager=is_eager)

    eventually(lambda: _are(told, [(name, task_id)]))


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize(
    ("own", "seen"),
    [
        ({"tag": "x", "level": 2}, ("x", 2)),
        ({"tag": "x"}, ("x", 1)),  # what comes after it cannot be given by position any more
    ],
)
def test_arguments_that_an_errback_is_given_by_name_are_not_free(
    app: App, own: dict[str, Any], seen: tuple[Any, ...], is_eager: bool
) -> None:
    task_id = _failed(app, app.tasks["tell"].s(**own), is_eager=is_eager)

    eventually(lambda: _are(told, [("tell", task_id, *seen)]))


def test_free_arguments_are_counted_as_celery_counts_them() -> None:
    def plain(a: int, b: int = 0, c: int = 0) -> None: ...
    def several(a: int, *more: int) -> None: ...
    def positional(a: int, b: int = 0, /, **more: int) -> None: ...

    def free(function: Any, *args: int, **kwargs: int) -> float:
        task = App("counting", broker="memory://").task(function)
        return task.parameters.number_free(args, kwargs)

    assert [free(plain), free(plain, 1), free(plain, c=1), free(plain, b=1), free(plain, other=1)] == [
        3,
        2,
        2,
        1,
        3,
    ]
    assert [free(several), free(several, 1), free(several, a=1)] == [math.inf, math.inf, 0]
    assert free(positional, b=1) == 2  # the name is one of its further ones


@pytest.mark.parametrize("is_eager", [False, True])
def test_the_members_of_a_group_are_errbacks_each_by_its_own_rule(app: App, is_eager: bool) -> None:
    note, explain, bound = (app.tasks[name] for name in ("note", "explain", "bound"))
    inner: Any = group(explain.s(), bound.s())
    errbacks = [group(note.s(tag="a"), explain.s(), inner), note.s(tag="b")]

    task_id = _failed(app, errbacks, is_eager=is_eager)

    called = [*[("explain", task_id)] * 2, ("note", task_id, "a"), ("bound", task_id), ("note", task_id, "b")]
    eventually(lambda: _are(sorted(told), sorted(called)))


@pytest.mark.parametrize("is_eager", [False, True])
@pytest.mark.parametrize("name", ["angry", "leaving", "fail", "nobody.knows"])
def test_an_errback_that_fails_stops_no_other(app: App, name: str, is_eager: bool) -> None:
    note, explain = app.tasks["note"], app.tasks["explain"]
    errbacks = [app.signature(name), note.s(tag="a"), group(app.signature(name), explain.s())]

    task_id = _failed(app, errbacks, is_eager=is_eager)

    called = [("explain", task_id), ("note", task_id, "a")]
    eventually(lambda: _are(sorted(told), called))


def test_an_errback_of_an_eager_chord_that_fails_stops_no_other(app: App) -> None:
    add, angry, explain = (app.tasks[name] for name in ("add", "angry", "explain"))
    body = app.tasks["total"].s().on_error(angry.s()).on_error(explain.s())

    result = chord([add.s(1, 1), app.tasks["fail"].s()], body).apply()

    assert told == [("explain", result.id)]


def test_a_group_of_errbacks_gives_its_members_its_options(app: App) -> None:
    note = app.tasks["note"]
    inner = {**group(note.s(tag="in")), "options": {"priority": 2}}
    outer = {**group(note.s(tag="out")), "options": {"queue": "elsewhere", "group_id": "g"}}
    outer["kwargs"] = {"tasks": [*outer["kwargs"]["tasks"], inner]}

    found = [(call["kwargs"]["tag"], call["options"]) for call in separate([outer])]

    assert found == [("out", {"queue": "elsewhere"}), ("in", {"priority": 2, "queue": "elsewhere"})]


def test_a_chain_that_cannot_take_the_id_is_a_dead_letter_and_stops_no_other_errback(app: App) -> None:
    note, explain = app.tasks["note"], app.tasks["explain"]

    _publish(app, "fail", errbacks=[chain(explain.s(), note.si("later")), chain(note.s(), note.si("then"))])

    eventually(lambda: _are(told, [("note", "odd", ""), ("note", "then", "")]))
    (letter,) = (each for each in app.dead_letters.find(["work"]) if each.reason != "failed")
    assert (letter.task, letter.reason) == ("celery.chain", "not-sent")
    assert "missing a required argument: 'error'" in letter.detail


_UNREADABLE = [
    7,
    {"task": "note", "subtask_type": ["chain"]},
    {"task": "note", "args": 5},
    {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": 5}},
]


def _publish(app: App, task: str, **embed: Any) -> None:
    """A call without arguments, with what a client wrote that checks nothing."""
    properties = Properties(
        content_type="application/json", content_encoding="utf-8", delivery_mode=2, correlation_id="odd",
        headers={"task": task, "id": "odd", "lang": "py"},
    )  # fmt: skip
    body = json.dumps([[], {}, embed]).encode()
    app.transport.publish(OutgoingMessage(exchange="", routing_key="work", body=body, properties=properties))


def _reasons(app: App) -> list[str]:
    return sorted(letter.reason for letter in app.dead_letters.find(["work"]))


@pytest.mark.parametrize("unreadable", _UNREADABLE)
@pytest.mark.parametrize("is_in_group", [False, True])
def test_an_errback_that_cannot_be_read_is_a_dead_letter_and_stops_no_other(
    app: App, unreadable: Any, is_in_group: bool
) -> None:
    errbacks = [unreadable, dict(app.tasks["note"].s()), dict(app.tasks["explain"].s())]

    _publish(app, "fail", errbacks=[_group_of(errbacks)] if is_in_group else errbacks)

    eventually(lambda: _are(sorted(told), [("explain", "odd"), ("note", "odd", "")]))
    eventually(lambda: _are(_reasons(app), ["failed", "not-sent"]))


def _group_of(errbacks: list[Any]) -> dict[str, Any]:
    """A group as a client writes it that checks nothing."""
    return {"task": "celery.group", "subtask_type": "group", "kwargs": {"tasks": errbacks}}


def test_what_follows_a_task_stays_with_what_takes_its_place_but_for_what_cannot_be_read(app: App) -> None:
    @app.task(name="replaced", bind=True)
    def replaced(self: Task[..., Any]) -> None:
        raise self.replace(app.tasks["note"].si("in place"))

    note = app.tasks["note"]

    _publish(app, "replaced", callbacks=[7, dict(note.si("then"))], errbacks=[7])

    eventually(lambda: _are(told, [("note", "in place", ""), ("note", "then", "")]))
    eventually(lambda: _are(_reasons(app), ["not-sent", "not-sent"]))
