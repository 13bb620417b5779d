"""Options of all parts of a workflow are checked where it is sent, as those of its first call are."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqp_tasks import App, Signature, Workflow, chain, chord, group
from amqp_tasks.errors import (
    BrokerConnectionError,
    BulkSendError,
    ConfigurationError,
    EncodeError,
    NotSent,
    UnknownQueue,
)
from support.inside import running

Send = Callable[[App, dict[str, Any]], object]

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"countdown": "soon"}, "'countdown' must be a number"),
    ({"countdown": 1, "eta": datetime(2030, 1, 1, tzinfo=UTC)}, "exclude each other"),
    ({"priority": 999}, "'priority' must be a whole number"),
    ({"expires": "x"}, "'expires' of a signature is no time"),
    ({"queue": "no-such-queue"}, "unknown queue 'no-such-queue'"),
    ({"queue": "default.dead"}, "holds the dead letters"),
    ({"queue": "default", "exchange": "e"}, "exclude each other"),
    ({"serializer": "nope"}, "unknown serializer 'nope'"),
    ({"compression": "nope"}, "unknown compression 'nope'"),
    ({"prioritty": 3}, "did you mean 'priority'"),
    ({"producer": "mine"}, "the app shares one connection"),
    ({"headers": 3}, "'headers' must be a mapping"),
    ({"headers": {"id": "x"}}, "belongs to the task protocol"),
    ({"retry_policy": {"tries": 1}}, "unknown key 'tries'"),
    ({"timestamp": -5}, "timestamp must be"),
    ({"task_id": ""}, "task_id|task id"),
    ({"link": 3}, "'link' must be a signature"),
    ({"stamped_headers": 3}, "must be names"),
]


def _with(part: Signature, options: dict[str, Any]) -> Signature:
    return part.set(**options)


SENDS: dict[str, Send] = {
    "a single signature": lambda app, wrong: _with(_a(app), wrong).delay(),
    "the first step": lambda app, wrong: chain(_with(_a(app), wrong), _a(app)).delay(),
    "a later step": lambda app, wrong: chain(_a(app), _with(_a(app), wrong)).delay(),
    "a step of another's": lambda app, wrong: chain(
        _a(app), _with(app.signature("other.task"), wrong)
    ).delay(),
    "a member": lambda app, wrong: group(_a(app), _with(_a(app), wrong)).delay(),
    "a step of a member": lambda app, wrong: group(_a(app), chain(_a(app), _with(_a(app), wrong))).delay(),
    "the first of a generator": lambda app, wrong: group(
        chain(_a(app), _with(_a(app), wrong)) for _ in range(2)
    ).delay(),
    "a body": lambda app, wrong: chord([_a(app), _a(app)], _with(_a(app), wrong)).delay(),
    "an errback of a body": lambda app, wrong: chord(
        [_a(app), _a(app)], _a(app).on_error(_with(_a(app), wrong))
    ).delay(),
    "a callback": lambda app, wrong: app.tasks["a"].apply_async((), link=_with(_a(app), wrong)),
    "an errback": lambda app, wrong: app.send_task("b", link_error=[_with(_a(app), wrong)]),
    "a callback of a callback": lambda app, wrong: _a(app).link(_a(app).link(_with(_a(app), wrong))).delay(),
    "a step of a callback": lambda app, wrong: _a(app).link(chain(_a(app), _with(_a(app), wrong))).delay(),
    "a named step": lambda app, wrong: (
        Workflow().step("x", _a(app)).step("y", _with(_a(app), wrong), after="x").delay()
    ),
    "an errback of a named step": lambda app, wrong: (
        Workflow().step("x", _a(app)).on_error(_with(_a(app), wrong)).delay()
    ),
}


def _a(app: App) -> Signature:
    return app.tasks["a"].s()


@pytest.fixture
def app() -> Iterator[App]:
    """An app that knows one queue, and has no broker: whatever is refused is refused without one."""
    made = App(
        "parts", broker="amqp://127.0.0.1:1//", result_backend="disabled://", task_create_missing_queues=False,
        task_publish_timeout=0.1,
    )  # fmt: skip

    @made.task(name="a")
    def a(*values: Any) -> None: ...

    yield made
    made.close()


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
@pytest.mark.parametrize(("wrong", "said"), WRONG, ids=[str(wrong)[:40] for wrong, _ in WRONG])
def test_a_wrong_option_of_any_part_is_refused_before_anything_is_sent(
    app: App, send: Send, wrong: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=said):
        send(app, wrong)


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_what_a_signature_may_have_is_not_refused(app: App, send: Send) -> None:
    right = {
        "countdown": 2, "expires": 60, "priority": 3, "queue": "default", "serializer": "json", "compression": "gzip",
        "headers": {"x": [1]}, "retry": True, "time_limit": 5, "link_error": _a(app), "user_id": None,
    }  # fmt: skip

    with pytest.raises((NotSent, BrokerConnectionError)):  # nobody listens there
        send(app, right)


@pytest.mark.parametrize("send", SENDS.values(), ids=SENDS)
def test_what_celery_and_stamps_write_into_a_signature_is_not_refused(app: App, send: Send) -> None:
    frozen = {
        "task_id": "t-1", "root_id": "r", "parent_id": None, "group_id": "g", "group_index": 1, "chord": dict(_a(app)),
        "chain": None, "reply_to": "", "retries": 0, "origin": "gen1@host", "replaced_task_nesting": 0,
        "expires": "2030-01-01T00:00:00+00:00", "batch": "b-1", "stamped_headers": ["batch"], "producer": None,
    }  # fmt: skip

    with pytest.raises((NotSent, BrokerConnectionError)):
        send(app, frozen)


def test_the_part_is_named_whose_option_is_wrong(app: App) -> None:
    other = app.signature("other.task")
    with pytest.raises(ConfigurationError, match=r"^task 'other\.task': call option 'priority' must be"):
        chain(_a(app), other.set(priority=-1)).delay()
    with pytest.raises(ConfigurationError, match=r"^step 'y': task 'a': call option 'priority' must be"):
        Workflow().step("x", _a(app)).step("y", _a(app).set(priority=-1), after="x").delay()
    with pytest.raises(UnknownQueue) as caught:
        chain(_a(app), other.set(queue="nope")).delay()
    assert caught.value.__notes__ == ["named by a call of task 'other.task' in a workflow"]


def test_a_header_that_no_message_can_hold_is_refused_as_that_of_the_first_call_is(app: App) -> None:
    with pytest.raises(EncodeError, match=r"headers\['x'\]"):
        chain(_a(app), _a(app).set(headers={"x": float("nan")})).delay()


def test_an_option_of_the_whole_is_checked_with_the_parts_that_get_it(app: App) -> None:
    body = chord([_a(app), _a(app)], _a(app), compression="nope")

    with pytest.raises(ConfigurationError, match="unknown compression"):
        chain(_a(app), body).delay()
    with pytest.raises(ConfigurationError, match="unknown compression"):
        chain(_a(app), group([_a(app)], compression="nope")).delay()


def test_a_callback_in_a_bulk_send_is_refused_with_its_call(app: App) -> None:
    with pytest.raises(BulkSendError, match="did you mean 'priority'"):
        app.send_many([("a", (), {}, {"link": _a(app).set(prioritty=1)})])


def test_a_part_that_was_right_does_not_make_another_so(app: App) -> None:
    right, wrong = _a(app).set(priority=1), _a(app).set(priority=True)

    with pytest.raises(ConfigurationError, match="got True"):
        chain(_a(app), right, wrong).delay()
    with pytest.raises(ConfigurationError, match="'link' must be"):
        chain(_a(app), _a(app).set(link=[]), _a(app).set(link=3)).delay()


def test_a_route_that_goes_by_arguments_is_not_asked_for_a_part_that_has_none_yet() -> None:
    def by_tenant(name: str, args: Any, kwargs: Any, options: Any, task: Any = None) -> dict[str, Any]:
        return {"queue": f"tenant-{args[0]}"}

    with App("routed", broker="memory://parts-routed/", task_routes=[by_tenant]) as made:

        @made.task(name="a")
        def a(*values: Any) -> None: ...

        chain(a.s("first"), a.s().set(expires=timedelta(seconds=5).total_seconds())).delay()


def test_a_named_step_may_be_stamped() -> None:
    with App("stamped", broker="memory://parts-stamped/") as made:

        @made.task(name="stamps", bind=True)
        def stamps(self: Any) -> dict[str, Any]:
            return dict(self.request.stamps)

        with running(made, pool="threads"):
            result = Workflow().step("x", stamps.s().stamp(batch="b-1")).delay()

            assert result.get(timeout=10) == {"x": {"batch": "b-1"}}


def test_a_member_of_a_generator_is_checked_when_it_is_read(app: App) -> None:
    read: list[int] = []

    def members() -> Iterator[Signature]:
        for number in range(3):
            read.append(number)
            yield _a(app).link(_a(app).set(priority=-1))

    with pytest.raises(ConfigurationError, match="priority"):
        group(members()).delay()
    assert read == [0]
