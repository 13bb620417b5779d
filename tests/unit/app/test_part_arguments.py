"""Arguments of later parts of a workflow are checked where it is sent, around the value that is not there yet."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, model_validator

from amqp_tasks import App, Signature, Workflow, chain, chord, group
from amqp_tasks.errors import BulkSendError, InvalidArguments
from support.inside import running

Make = Callable[[App], Any]


class Order(BaseModel):
    """Its validator changes what it gets."""

    number: int

    @model_validator(mode="before")
    @classmethod
    def _taken(cls, data: dict[str, Any]) -> dict[str, Any]:
        return {"number": data.pop("no")} if "no" in data else data


seen: list[Any] = []


class Noted(BaseModel):
    """Its validator notes what it gets."""

    @model_validator(mode="before")
    @classmethod
    def _note(cls, data: Any) -> Any:
        seen.append(data)
        return data


@pytest.fixture
def app() -> Iterator[App]:
    """An app whose messages nobody takes."""
    with App("arguments", broker=f"memory://part-arguments-{uuid4()}/") as made:

        @made.task(name="add")
        def add(x: int, y: int) -> int:
            return x + y

        @made.task(name="any")
        def anything(*args: Any, **kwargs: Any) -> Any:
            return args

        @made.task(name="named")
        def named(value: Any, /, other: Any = None, *, key: str) -> None: ...

        @made.task(name="bound", bind=True)
        def bound(self: Any, value: Any) -> None: ...

        @made.task(name="models")
        def models(value: Any, order: Order, ids: list[UUID]) -> None: ...

        @made.task(name="untyped", typing=False)
        def untyped(value: Any) -> None: ...

        @made.task(name="by_id")
        def by_id(task_id: str) -> None: ...

        @made.task(name="explain")
        def explain(request: Any, error: Any, traceback: Any, key: str = "") -> None: ...

        yield made


def _s(app: App, name: str, *args: Any, **kwargs: Any) -> Signature:
    return app.tasks[name].s(*args, **kwargs)


def _add(app: App, *args: Any, **kwargs: Any) -> Signature:
    return _s(app, "add", *args, **kwargs)


WRONG: dict[str, tuple[Make, str]] = {
    "too many for a step": (
        lambda app: _add(app, 1, 1) | _add(app, 1, 2, 3),
        r"^step 2 of a chain: task 'add': too many .*; first it gets what is passed on to it",
    ),
    "too few for an immutable step": (
        lambda app: _add(app, 1, 1) | app.tasks["add"].si(1),
        r"^step 2 of a chain: task 'add': missing a required argument: 'y' \(signature: [^;]*$",
    ),
    "a type of an immutable step": (
        lambda app: _add(app, 1, 1) | app.tasks["add"].si("one", 1),
        "argument 'x': expected int, got str",
    ),
    "an unknown name": (lambda app: _add(app, 1, 1) | _add(app, zz=1), "task 'add'"),
    "a name that the value has": (lambda app: _add(app, 1, 1) | _add(app, x=1), "multiple values"),
    "no name that is needed": (lambda app: _add(app, 1, 1) | _s(app, "named"), "'key'"),
    "a type beside the value": (lambda app: _add(app, 1, 1) | _add(app, "one"), "argument 'y'"),
    "a type by name": (lambda app: _add(app, 1, 1) | _s(app, "named", key=1), "argument 'key'"),
    "a model beside the value": (
        lambda app: _add(app, 1, 1) | _s(app, "models", {"number": "x"}, []),
        "argument 'order': number",
    ),
    "items of a list beside the value": (
        lambda app: _add(app, 1, 1) | _s(app, "models", {"number": 1}, ["x"]),
        "argument 'ids': 0",
    ),
    "a bound task": (lambda app: _add(app, 1, 1) | _s(app, "bound", 1), "task 'bound'"),
    "a callback": (lambda app: _add(app, 1, 1).link(_add(app, 1, 2, 3)), "^callback: task 'add'"),
    "a callback of a callback": (
        lambda app: _add(app, 1, 1).link(_s(app, "any").link(_add(app))),
        "^callback: task 'add': missing",
    ),
    "a callback of a later step": (
        lambda app: _s(app, "any") | _s(app, "any").link(_add(app)),
        "^callback: task 'add': missing",
    ),
    "a step of a callback": (
        lambda app: _add(app, 1, 1).link(_s(app, "any") | _add(app)),
        "^callback: step 2 of a chain: task 'add': missing",
    ),
    "a body": (lambda app: chord([_add(app, 1, 1)], _add(app, 1, 2, 3)), "^body of a chord: task 'add'"),
    "an immutable body": (lambda app: chord([_add(app, 1, 1)], app.tasks["add"].si(1)), "^body of a chord"),
    "a body of a header": (
        lambda app: chord([chord([_add(app, 1, 1)], _add(app))], _s(app, "any")),
        "^member 1 of a group: body of a chord: task 'add'",
    ),
    "a body that is called when all have ended": (
        lambda app: group(_add(app, 1, 1)).on_complete(_add(app)),
        "^body of a chord",
    ),
    "a member after a step": (
        lambda app: _add(app, 1, 1) | group(_add(app, 1), _add(app)),
        "^step 2 of a chain: member 2 of a group: task 'add': missing",
    ),
    "a member after a group": (
        lambda app: group(_add(app, 1, 1)) | group(_add(app, 1), _add(app)),
        "^body of a chord: member 2 of a group: task 'add': missing",
    ),
    "a header after a step": (
        lambda app: _add(app, 1, 1) | chord([_add(app)], _s(app, "any")),
        "^step 2 of a chain: member 1 of a group: task 'add': missing",
    ),
    "a step of a generator's member": (
        lambda app: group(_add(app, 1, 1) | _add(app) for _ in range(2)),
        "^step 2 of a chain: task 'add': missing",
    ),
    "a map": (lambda app: _add(app, 1, 1) | app.tasks["add"].map([1]), "^step 2 of a chain: task 'add'"),
    "one item of a starmap": (
        lambda app: _add(app, 1, 1) | app.tasks["add"].starmap([(1, 2), (1, 2, 3)]),
        "^step 2 of a chain: task 'add': too many",
    ),
    "one item of chunks": (
        lambda app: _add(app, 1, 1) | app.tasks["add"].chunks([(1, 2), (1,)], 1),
        "^step 2 of a chain: member 2 of a group: task 'add': missing",
    ),
    "an errback that gets the id": (
        lambda app: _add(app, 1, 1).on_error(_s(app, "by_id", 1, 2)),
        "^errback: task 'by_id': too many",
    ),
    "an errback that gets the exception": (
        lambda app: _add(app, 1, 1).on_error(_s(app, "explain", "k", "more")),
        "^errback: task 'explain': too many .*; first it gets request, exception and traceback",
    ),
    "a name for an errback": (
        lambda app: _add(app, 1, 1).on_error(_s(app, "explain", zz=1)),
        "^errback: task 'explain'",
    ),
    "an errback that is a chain": (
        lambda app: _add(app, 1, 1).on_error(_s(app, "any") | _add(app)),
        "^errback: step 2 of a chain: task 'add': missing",
    ),
    "a member of a group of errbacks": (
        lambda app: _add(app, 1, 1).on_error(group(_s(app, "by_id"), _s(app, "by_id", 1, 2))),
        "^errback: task 'by_id': too many",
    ),
    "a member of a group of errbacks that gets the exception": (
        lambda app: _add(app, 1, 1).on_error(group(_s(app, "by_id"), _s(app, "explain", "k", "more"))),
        "^errback: task 'explain': too many .*; first it gets request, exception and traceback",
    ),
    "a chain among the members of a group in a group of errbacks": (
        lambda app: _add(app, 1, 1).on_error(group(group(_s(app, "any") | _add(app)), _s(app, "any"))),
        "^errback: step 2 of a chain: task 'add': missing",
    ),
    "an argument that an errback has from its group": (
        lambda app: _add(app, 1, 1).on_error(group(_s(app, "by_id")).changed(args=[1])),
        "^errback: task 'by_id': too many",
    ),
    "a map that is sent alone": (lambda app: app.tasks["add"].map([1]), "^task 'add': missing"),
    "an item of a starmap that is sent alone": (
        lambda app: app.tasks["add"].starmap([(1, 2), (1, 2, 3)]),
        "^task 'add': too many",
    ),
    "an item of a starmap that comes first": (
        lambda app: app.tasks["add"].starmap([(1, 2), (1, 2, 3)]) | _s(app, "any"),
        "^step 1 of a chain: task 'add': too many",
    ),
    "an item of chunks that come first": (
        lambda app: app.tasks["add"].chunks([(1, 2), (1,)], 1),
        "^member 2 of a group: task 'add': missing",
    ),
    "an item of the first of named steps": (
        lambda app: Workflow().step("a", app.tasks["add"].starmap([(1,)])),
        "^step 'a': task 'add': missing",
    ),
    "a type of a named step": (
        lambda app: Workflow().step("a", _add(app, 1, 1)).step("b", _add(app, "one"), after="a"),
        "^step 'b': task 'add': argument 'y': expected int, got str.*; first it gets what a gave",
    ),
    "a callback of a named step": (
        lambda app: Workflow().step("a", _s(app, "any")).step("b", _s(app, "any").link(_add(app)), after="a"),
        "^step 'b': callback: task 'add': missing",
    ),
}

RIGHT: dict[str, Make] = {
    "a value and another": lambda app: _add(app, 1, 1) | _add(app, 1),
    "by name": lambda app: _add(app, 1, 1) | _add(app, y=1),
    "an immutable step": lambda app: _add(app, 1, 1) | app.tasks["add"].si(1, 1),
    "any number": lambda app: _s(app, "any") | _s(app, "any", 1, 2, 3, four=4) | _s(app, "any"),
    "keywords only": lambda app: _s(app, "any") | _s(app, "named", key="k") | _s(app, "named", 1, key="k"),
    "a bound task": lambda app: _s(app, "any") | _s(app, "bound"),
    "a model and text for ids": lambda app: (
        _s(app, "any") | _s(app, "models", {"number": "1"}, [uuid4(), str(uuid4())])
    ),
    "a task that is not known": lambda app: _s(app, "any") | app.signature("other", (1, 2), kwargs={"zz": 1}),
    "a task without typing": lambda app: _s(app, "any") | _s(app, "untyped", 1, 2, 3),
    "a body, a group after a group, a chord of chords": lambda app: (
        group(_add(app, 1, 1), chord([_add(app, 1, 1)], _s(app, "bound")))
        | group(_s(app, "bound"), _s(app, "any", 1))
        | _s(app, "bound")
    ),
    "a header without members": lambda app: chord([], _s(app, "bound")),
    "arguments of a group after a step": lambda app: (
        _add(app, 1, 1) | group(_add(app)).changed(args=[1]) | _s(app, "bound")
    ),
    "arguments of a chain in a chain": lambda app: (
        _add(app, 1, 1) | group(chain(_add(app), _add(app, 1)).changed(args=[1]))
    ),
    "a map, a starmap and chunks": lambda app: chain(
        _s(app, "any"),
        app.tasks["bound"].map([1]),
        app.tasks["add"].starmap([(1, 2)]),
        app.tasks["add"].chunks([(1, 2), (3, 4)], 1),
    ),
    "a starmap of calls that take none of the items": lambda app: (
        _s(app, "any")
        | app.signature("celery.starmap", kwargs={"task": app.tasks["add"].si(1, 2), "it": [[5, 6, 7]]})
    ),
    "errbacks of both kinds": lambda app: (
        _add(app, 1, 1).on_error(_s(app, "by_id")).on_error(_s(app, "explain", "k"))
    ),
    "an errback whose types nobody checks": lambda app: _add(app, 1, 1).on_error(_s(app, "explain", 5)),
    "a group of errbacks, which are called as each of them is": lambda app: _add(app, 1, 1).on_error(
        group(_s(app, "by_id"), _s(app, "explain"))
    ),
    "a group of errbacks from a generator, whose members are not read": lambda app: _add(app, 1, 1).on_error(
        group(_s(app, "by_id") for _ in range(2))
    ),
    "a map, a starmap and chunks that are sent first": lambda app: group(
        app.tasks["bound"].map([1]),
        app.tasks["add"].starmap([(1, 2)]),
        app.tasks["add"].chunks([(1, 2), (3, 4)], 1),
    ),
    "an immutable errback": lambda app: _add(app, 1, 1).on_error(app.tasks["add"].si(1, 1)),
    "what is link and errback": lambda app: (
        _add(app, 1, 1).link(_s(app, "any", 1)).on_error(_s(app, "any", 1)) | _s(app, "any")
    ),
}


@pytest.mark.parametrize(("make", "said"), WRONG.values(), ids=WRONG)
def test_arguments_of_a_later_part_that_cannot_fit_are_refused_before_anything_is_sent(
    app: App, make: Make, said: str
) -> None:
    with pytest.raises(InvalidArguments, match=said):
        make(app).delay()

    assert app.transport.queue_status("default") is None


@pytest.mark.parametrize("make", RIGHT.values(), ids=RIGHT)
def test_arguments_of_a_later_part_that_may_fit_are_not_refused(app: App, make: Make) -> None:
    make(app).delay()


def test_arguments_of_a_partial_chain_come_to_its_first_step_alone(app: App) -> None:
    partial = _add(app, 1) | _add(app, 2)

    partial.delay(3)
    with pytest.raises(InvalidArguments, match=r"^task 'add': missing"):
        partial.delay()


def test_arguments_of_a_callback_are_refused_with_its_call(app: App) -> None:
    with pytest.raises(InvalidArguments, match=r"^callback: task 'add'"):
        app.tasks["add"].apply_async((1, 1), link=_add(app))
    with pytest.raises(BulkSendError, match="callback: task 'add'"):
        app.send_many([("any", (), {}, {"link": _add(app)})])


def test_the_same_signature_is_checked_as_callback_and_as_errback(app: App) -> None:
    both = _s(app, "explain")

    with pytest.raises(InvalidArguments, match=r"^callback: task 'explain': missing"):
        _add(app, 1, 1).on_error(both).link(both).delay()


def test_a_number_of_arguments_that_was_right_does_not_make_types_so(app: App) -> None:
    (_add(app, 1, 1) | _add(app, 1)).delay()

    with pytest.raises(InvalidArguments, match="argument 'y'"):
        (_add(app, 1, 1) | _add(app, "one")).delay()


def test_a_value_that_is_not_there_yet_is_neither_converted_nor_validated(app: App) -> None:
    @app.task(name="noted")
    def noted(value: Noted, other: Noted) -> None: ...

    seen.clear()
    (_add(app, 1, 1) | noted.s({})).delay()

    assert seen == [{}]


def test_a_check_leaves_an_argument_as_it_is(app: App) -> None:
    order = {"no": 1}

    (_add(app, 1, 1) | _s(app, "models", order, [])).delay()

    assert order == {"no": 1}


def test_what_may_arrive_as_anything_is_not_refused_for_its_type(app: App) -> None:
    class Two:
        def __json__(self) -> int:
            return 2

    with running(app, pool="threads"):
        assert (_add(app, 1, 1) | _add(app, Two())).delay().get(timeout=10) == 4


def test_a_member_that_a_task_adds_to_its_chord_and_what_replaces_one_are_called_as_they_were(
    app: App,
) -> None:
    @app.task(name="change", bind=True)
    def change(self: Any, value: int) -> int:
        if value:
            self.add_to_chord(_add(app, value, 1))
            return value
        raise self.replace(_add(app, 5, 5) | _add(app, 1))

    with running(app, pool="threads"):
        result = chord([change.s(3), change.s(0)], _s(app, "any")).delay()

        assert result.get(timeout=10) == [[3, 11, 4]]


def test_a_generator_of_members_is_not_read_before_they_are_sent(app: App) -> None:
    read: list[int] = []

    def members() -> Iterator[Signature]:
        for number in range(3):
            read.append(number)
            yield _add(app, 1, 1) | (_add(app, 1) if number == 0 else _add(app))

    with pytest.raises(InvalidArguments, match="step 2 of a chain"):
        group(members()).delay()
    assert read == [0, 1]
