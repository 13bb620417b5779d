"""Workflows on the embedded broker, so that users' tests see what RabbitMQ would give."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import pytest
from kombu.utils import json as kombu_json

from amqp_routing import Topology
from amqp_tasks import App, Request, Task, Workflow, chain, chord, group
from amqp_tasks.errors import (
    BrokerUnreachable,
    ChordError,
    ConfigurationError,
    InvalidArguments,
    RemoteError,
    StepNotRun,
)
from support import eventually
from support.apps import Unforeseen, add_workflow_tasks
from support.inside import running


@pytest.fixture
def app() -> Iterator[App]:
    """An app with a worker in a thread."""
    with App("embedded", broker="memory://workflows/") as made:
        add_workflow_tasks(made)
        with running(made, pool="threads", concurrency=2):
            yield made


def test_workflows_give_what_they_give_on_rabbitmq(app: App) -> None:
    add, total, fail = (app.tasks[name] for name in ("add", "total", "fail"))

    assert chain(add.s(1, 1), add.s(2))().get(timeout=10) == 4
    assert group(add.s(n, n) for n in range(5))().get(timeout=10) == [0, 2, 4, 6, 8]
    assert chord([add.s(n, n) for n in range(5)], total.s())().get(timeout=10) == 20
    assert chain(add.s(1, 1), group(add.s(1), add.s(2)), total.s(), add.s(1))().get(timeout=10) == 8
    with pytest.raises(ChordError):
        chord([add.s(1, 1), fail.s()], total.s())().get(timeout=10)


def test_what_a_member_raised_is_the_cause_of_its_chords_error(app: App) -> None:
    add, total, fail = (app.tasks[name] for name in ("add", "total", "fail"))

    @app.task(name="own")
    def own() -> None:
        raise Unforeseen("u", 7)

    inner = chord([add.s(1, 1), own.s()], total.s())
    with pytest.raises(ChordError, match="raised ValueError") as caught:
        chord([add.s(1, 1), fail.s()], total.s())().get(timeout=10)
    assert repr(caught.value.__cause__) == "ValueError('no')"
    with pytest.raises(ChordError, match="raised Unforeseen") as caught:
        inner().get(timeout=10)
    cause = caught.value.__cause__
    assert isinstance(cause, RemoteError)
    assert (cause.exc_type, cause.exc_args, cause.exc_module) == ("Unforeseen", ("u", 7), "support.apps")
    with pytest.raises(ChordError) as caught:
        chord([inner, add.s(1, 1)], total.s())().get(timeout=10)
    assert isinstance(caught.value.__cause__, ChordError)


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_group_without_members_gives_an_empty_list_wherever_it_stands(app: App, is_eager: bool) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    none = group([])
    forms = {
        "at the end of a chain": (add.s(1, 1) | none, []),
        "at the end of one that was made at once": (chain(add.s(1, 1), none), []),
        "in a chain": (add.s(1, 1) | none | total.s(), 0),
        "in a longer chain": (add.s(1, 1) | add.s(1) | none | total.s() | add.s(1), 1),
        "after a group": (group(add.s(1, 1)) | none, []),
        "after a chord": (group(add.s(1, 1)) | total.s() | none, []),
        "in a member": (group(add.s(1, 1) | none), [[]]),
    }

    def run(part: Any) -> Any:
        return part.apply() if is_eager else part.delay()

    results = {form: run(part) for form, (part, _) in forms.items()}

    assert {form: result.get(timeout=10) for form, result in results.items()} == {
        form: value for form, (_, value) in forms.items()
    }


def test_a_frozen_workflow_has_the_id_of_its_result_before_it_is_sent(app: App) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    pair = group(add.s(1, 1), add.s(2, 2))

    for part in (add.s(1, 1), add.s(1, 1) | add.s(2), pair, pair | total.s(), add.s(1, 1) | group(add.s(1))):
        frozen = part.freeze()
        result = frozen.delay()

        assert result.id == frozen.id
        result.get(timeout=10)
    assert add.s(1, 1).freeze().id != add.s(1, 1).freeze().id


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
def test_every_serializer_can_write_the_arguments_of_signatures(serializer: str) -> None:
    with App("written", broker="memory://written/", accept_content=["json", serializer]) as app:

        @app.task(name="given")
        def given(**values: Any) -> dict[str, Any]:
            return values

        with running(app, pool="threads", concurrency=1):
            call = given.s(x=1).set(serializer=serializer)

            assert call.delay().get(timeout=10) == {"x": 1}
            assert group(call, call).delay(y=2).get(timeout=10) == [{"x": 1, "y": 2}] * 2


@pytest.mark.parametrize("is_eager", [False, True])
def test_what_ends_with_a_group_takes_a_tasks_place_with_the_list_of_its_values(
    app: App, is_eager: bool
) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    told: list[list[int]] = []
    app.task(name="tell")(told.append)
    pair = group(add.s(10), add.s(20))
    forms = {
        "a chain": add.s(1, 1) | pair,
        "a group and another": group(add.s(1, 1)) | total.s() | pair,
        "a chord": chord([add.s(1, 1)], chain(total.s(), pair)),
        "a chord of one group": chord([add.s(1, 0), add.s(0, 1)], group(total.s(), total.s())),
        "a chain of one group": chain(group(add.s(1, 1), add.s(2, 2))),
    }

    @app.task(name="replaced", bind=True)
    def replaced(self: Task[..., Any], form: str) -> None:
        raise self.replace(forms[form])

    def value_of(form: str) -> Any:
        call = replaced.s(form).link(app.tasks["tell"].s())
        return (call.apply() if is_eager else call.delay()).get(timeout=10)

    values = [value_of(form) for form in forms]

    assert values == [[12, 22], [12, 22], [12, 22], [2, 2], [2, 4]]
    eventually(lambda: sorted(told) == sorted(values))


@pytest.mark.parametrize("is_eager", [False, True])
def test_a_group_of_a_generator_may_be_a_later_step_and_a_body(app: App, is_eager: bool) -> None:
    add, total = app.tasks["add"], app.tasks["total"]

    def run(part: Any) -> Any:
        return (part.apply() if is_eager else part.delay()).get(timeout=10)

    assert run(add.s(1, 1) | group(add.s(n) for n in range(3))) == [2, 3, 4]
    assert run(chord([add.s(1, 1)], group(total.s() for _ in range(2)))) == [2, 2]
    assert run(chain(group(add.s(n, n) for n in range(2)))) == [0, 2]


def test_a_group_of_a_generator_may_be_anywhere_in_a_callback_and_is_sent_each_time(app: App) -> None:
    """It was an `EncodeError` that named a class of ours, or had been read when the callback was sent again."""
    told: list[Any] = []
    add, tell = app.tasks["add"], app.task(name="tell")(told.append)

    def several() -> Any:
        return group(add.s(n) for n in range(2)) | tell.s()

    def last() -> Any:
        return add.s(5) | group(tell.s() for _ in range(2))

    first = add.s(1, 1)
    calls: list[Any] = [
        first.link(last()),
        first.link(several()),
        first.link(add.s(3).link(last())),
        first.link(chord([add.s(1)], app.tasks["total"].s() | group(tell.s() for _ in range(2)))),
        first.set(link=last()),
        chain(first, add.s(1).set(link=last())),
        Workflow().step("one", first.link(last())),
    ]

    for _ in range(2):
        for call in calls:
            call.delay().get(timeout=10)
        first.apply_async(link=last()).get(timeout=10)

    once = [*[7] * 2, [2, 3], *[10] * 2, *[3] * 2, *[7] * 2, *[8] * 2, *[7] * 2, *[7] * 2]
    eventually(lambda: _are(told, [*once, *once]))


def _are(found: list[Any], expected: list[Any]) -> None:
    assert sorted(map(repr, found)) == sorted(map(repr, expected))


@pytest.mark.parametrize("is_eager", [False, True])
def test_arguments_given_to_what_is_composed_come_to_what_it_begins_with(app: App, is_eager: bool) -> None:
    add, total = app.tasks["add"], app.tasks["total"]
    pair, line = group(add.s(1), add.s(2)).clone((4,)), chain(add.s(1), add.s(2)).clone((4,))

    def run(part: Any) -> Any:
        return (part.apply() if is_eager else part.delay()).get(timeout=10)

    assert run(add.si(9, 9) | chain(add.s(), add.s(2)).clone((4,))) == 24
    assert run(line | add.s(3)) == 10
    assert run(group(pair, add.s(1, 0))) == [5, 6, 1]
    assert run(pair | total.s()) == 11
    assert run(chain(pair, total.s(), add.s(1))) == 12
    assert run(chord([chord(pair, total.s()), line], total.s())) == 18
    assert run(chain(add.s(1), group(add.s(1), add.s(2))).clone((4,)) | total.s()) == 13


class Odd:
    """Of a type that the app has registered for JSON, with a repr that exits."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        raise SystemExit

    @staticmethod
    def read(kind: str) -> Odd:
        """Reads what was written, or raises an error with a text that exits."""
        if kind == "unreadable":
            raise OddError
        return Odd(kind)


class OddError(Exception):
    def __str__(self) -> str:
        raise SystemExit


@pytest.fixture
def odd() -> Iterator[None]:
    """The type is registered with kombu, as users do."""
    kombu_json.register_type(Odd, "odd", lambda value: value.kind, Odd.read)
    yield
    kombu_json._encoders.pop(Odd)
    kombu_json._decoders.pop("odd")


@pytest.mark.usefixtures("odd")
@pytest.mark.parametrize("is_named", [False, True])
@pytest.mark.parametrize("kind", ["unreadable", "raised"])
def test_an_outcome_with_code_that_exits_ends_what_waits_for_it(kind: str, is_named: bool) -> None:
    """It was looked at for ever, and so was what watches it."""
    with App("odd", broker=f"memory://{kind}-{is_named}/", task_chord_timeout=1.0) as made:
        add_workflow_tasks(made)
        add, total = made.tasks["add"], made.tasks["total"]

        @made.task(name="give", ignore_result=True)
        def give() -> Odd:
            if kind == "raised":
                raise ValueError(Odd(kind))
            return Odd(kind)

        steps = Workflow().step("one", give).step("two", total.si([])).step("all", add, after=["one", "two"])
        with running(made, pool="threads", concurrency=1):
            result = steps.delay()["all"] if is_named else chord([give.s(), give.s()], total.s()).delay()

            with pytest.raises(StepNotRun if is_named else ChordError):
                result.get(timeout=15)


def test_a_chain_without_tasks_is_refused(app: App) -> None:
    empty = chain().bound_to(app.sender)
    for send in (empty.delay, empty.apply):
        with pytest.raises(ConfigurationError, match="a chain needs at least one task"):
            send()


class Argument(int):
    """Counts how many of its kind there are."""

    alive = most = 0

    def __init__(self, value: int) -> None:
        Argument.alive += 1
        Argument.most = max(Argument.most, Argument.alive)

    def __del__(self) -> None:
        Argument.alive -= 1


def test_the_members_of_a_generator_are_never_in_memory_together(app: App) -> None:
    add = app.tasks["add"]

    results = group(add.s(Argument(1), 1) for _ in range(5000))()

    assert sum(results.get(timeout=60)) == 10_000
    assert Argument.most < 50


def test_an_errback_is_called_once_however_often_the_broker_is_asked_for_what_another_needs(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []
    absences = [BrokerUnreachable("away", url="memory://")]
    ensure = app.transport.ensure_topology

    @app.task(name="explain")
    def explain(request: Any, error: Any, traceback: str) -> None:
        called.append(f"{request.id} {error}")

    def away_at_first(topology: Topology, **options: Any) -> None:
        if topology.queue("noted") is not None and absences:
            raise absences.pop()
        ensure(topology, **options)

    monkeypatch.setattr(app.transport, "ensure_topology", away_at_first)
    errbacks = [explain.s(), app.signature("note").set(queue="noted")]
    failed = app.tasks["fail"].apply_async(link_error=errbacks)

    with pytest.raises(ValueError):
        failed.get(timeout=10)
    status = app.transport.queue_status("noted")
    assert status is not None
    assert (called, absences, status.messages) == ([f"{failed.id} no"], [], 1)


def test_an_errback_may_say_of_which_types_its_arguments_are(app: App) -> None:
    called: list[tuple[Request, Exception, str | None]] = []

    @app.task
    def explain(request: Request, error: Exception, traceback: str | None) -> None:
        called.append((request, error, traceback))

    failed = app.tasks["fail"].apply_async(link_error=explain.s())

    with pytest.raises(ValueError):
        failed.get(timeout=10)
    eventually(lambda: len(called) == 1)
    ((request, error, traceback),) = called
    assert (request.id, str(error)) == (failed.id, "no")
    assert "ValueError" in (traceback or "")


def test_the_body_of_a_chord_has_the_parent_that_sent_the_chord_and_none_where_a_client_did(app: App) -> None:
    @app.task(name="parent_of", bind=True)
    def parent_of(self: Task[..., Any], values: list[int]) -> str | None:
        return self.request.parent_id

    @app.task(name="sender", bind=True)
    def sender(self: Task[..., Any]) -> None:
        raise self.replace(chord([app.tasks["add"].s(1, 1)], parent_of.s()))

    assert chord([app.tasks["add"].s(1, 1)], parent_of.s()).delay().get(timeout=10) is None
    sent = sender.delay()
    assert sent.get(timeout=10) == sent.id


def test_the_body_of_a_clients_chord_that_cannot_be_sent_is_not_said_to_follow_a_task() -> None:
    broker = f"memory://{uuid4().hex}/"
    with (
        App("lost", broker=broker, task_default_queue="work") as made,
        App("who knows no task", broker=broker, task_default_queue="work") as client,
    ):
        add_workflow_tasks(made)
        with running(made, pool="threads", concurrency=1):
            member, body = (client.signature("add", args, immutable=True) for args in ((1, 1), (1,)))
            with pytest.raises(InvalidArguments):
                chord([member], body).delay().get(timeout=10)
        (letter,) = made.dead_letters.find(["work"])

    assert re.match(r"body of amqp_tasks\.join\.\S+ cannot be sent: task 'add': missing", letter.detail)


@pytest.mark.parametrize(
    "shape",
    [
        lambda fail, step: chain(chord([step], group(fail)), step),
        lambda fail, step: chain(chord([], group(fail, step)), step),
        lambda fail, step: chain(step, chord([step], group(fail)), chain(step), step),
    ],
)
def test_the_errback_of_a_whole_is_called_once_where_a_group_within_it_fails(app: App, shape: Any) -> None:
    """A group at the end of a chord's body is the header of what follows: its members have no errback of their own."""
    told: list[str | None] = []

    @app.task(name="tell", bind=True)
    def tell(self: Task[..., Any], task_id: str) -> None:
        told.append(self.request.id)

    fail, last = app.tasks["fail"].s(), app.tasks["total"].si([0])

    with pytest.raises(ChordError):
        shape(fail, last).on_error(tell.s()).delay().get(timeout=10)
    app.tasks["add"].delay(1, 1).get(timeout=10)  # sent after all of them

    eventually(lambda: len(told) > 0)
    assert len(told) == 1
