"""What the options of a call and of a task may be: the rest is refused before anything is sent."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from amqp_routing import RouteError
from amqp_tasks import App, Task
from amqp_tasks.errors import ConfigurationError, EncodeError

ENDLESS = [math.inf, math.nan, 1e12, 10**400]
BELOW = [-1, -0.5, *ENDLESS]
LONG = "n" * 256


def add(x: int, y: int) -> int:
    return x + y


@pytest.fixture
def task() -> Task[..., Any]:
    """A task whose app has no broker: whatever is refused is refused without one."""
    return App("proj", broker="amqp://127.0.0.1:1//", task_publish_timeout=0.1).task(add)


@pytest.fixture
def embedded() -> Iterator[App]:
    """An app with a broker in the process, whose default queue is there."""
    app = App("proj", broker="memory://options/")
    app.send_task("first")
    yield app
    app.close()


@pytest.mark.parametrize(
    ("option", "values", "said"),
    [
        ("queue", ["", LONG, "ü" * 128, "\ud800"], "leave queue out for the default"),
        ("exchange", [LONG, "\ud800"], "name of an exchange, at most 255 bytes"),
        ("routing_key", [LONG, "\ud800"], "at most 255 bytes"),
        ("reply_to", [LONG, "\ud800"], "name of a queue, at most 255 bytes"),
        ("task_id", ["", LONG, "\ud800"], "text of 1 to 255 bytes"),
        ("priority", [-1, 256, 1.0, math.nan], "whole number from 0 to 255"),
        ("delivery_mode", [0, 3, "persistent"], r"1 \(transient\) or 2 \(persistent\)"),
        ("expires", [-5, -0.1, timedelta(seconds=-1), math.inf, math.nan], "not negative, or a datetime"),
        ("time_limit", BELOW, "finite number of seconds, 0 for none"),
        ("soft_time_limit", BELOW, "finite number of seconds, 0 for none"),
        ("timeout", [0, *BELOW], "number of seconds above 0"),
        ("serializer", [""], "name of a serializer"),
        ("compression", [""], "name of a compression"),
        ("ignore_result", ["no", 0], "True or False"),
        ("retry", ["no", 0, None], "True or False"),
        ("confirm", ["no", 0, None], "True or False"),
        ("add_to_parent", ["no", None], "True or False"),
    ],
)
def test_a_value_of_a_call_that_cannot_be_is_refused(
    task: Task[..., Any], option: str, values: list[Any], said: str
) -> None:
    for value in values:
        with pytest.raises(ConfigurationError, match=f"^call option '{option}' must be .*{said}.*, got "):
            task.apply_async((1, 2), **{option: value})


@pytest.mark.parametrize(
    ("option", "values"),
    [
        ("queue", [""]),
        ("priority", [-1, 256]),
        ("expires", [-5]),
        ("time_limit", BELOW),
        ("acks_late", ["no"]),
        ("typing", ["no"]),
        ("resultrepr_maxsize", [0, -1, "all"]),
    ],
)
def test_a_value_of_a_task_that_cannot_be_is_refused(option: str, values: list[Any]) -> None:
    app: Any = App("proj")
    for value in values:
        with pytest.raises(
            ConfigurationError, match=f"option of task 'proj.add': '{option}' must be .*, got "
        ):
            app.task(name="proj.add", **{option: value})(add)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"serializer": "zz"}, "unknown serializer 'zz'; known: json"),
        ({"serializer": "pickle"}, "serializer 'pickle' runs code found in messages"),
        ({"compression": "zz"}, "unknown compression 'zz'; known: "),
        ({"queue": "a", "exchange": "b"}, "queue='a' and exchange='b' exclude each other: give one of them"),
        ({"throws": ("x",)}, "throws takes exception classes, got ('x',)"),
        ({"priority": 999}, "'priority' must be a whole number from 0 to 255, got 999"),
    ],
)
def test_what_every_call_would_refuse_is_refused_of_a_task(options: dict[str, Any], said: str) -> None:
    app: Any = App("proj")
    kind = type("Kind", (Task,), {**options, "name": "proj.kind", "run": lambda self: None})

    with pytest.raises(ConfigurationError, match=f"^option of task 'proj.add': {re.escape(said)}"):
        app.task(name="proj.add", **options)(add)
    with pytest.raises(ConfigurationError, match=f"^option of task 'proj.kind': {re.escape(said)}"):
        app.register_task(kind)

    assert list(app.tasks) == []


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        ({"max_retries": 1.5}, "a whole number from 0, or None, got 1.5"),
        ({"max_retries": math.nan}, "a whole number from 0, or None, got nan"),
        ({"interval_max": math.inf}, "a number of seconds from 0, got inf"),
        ({"interval_step": -1}, "a number of seconds from 0, got -1"),
    ],
)
def test_a_retry_policy_that_cannot_be_is_refused(task: Task[..., Any], policy: Any, said: str) -> None:
    (name,) = policy

    with pytest.raises(ConfigurationError, match=rf"^retry_policy\['{name}'\] must be {said}$"):
        task.apply_async((1, 2), retry_policy=policy)


@pytest.mark.parametrize("value", [math.nan, math.inf, [-math.inf], {"deep": [math.nan]}])
def test_a_number_that_breaks_the_connection_is_no_header(task: Task[..., Any], value: Any) -> None:
    with pytest.raises(EncodeError, match=r"headers\['tenant'\]: .* cannot be an AMQP header value"):
        task.apply_async((1, 2), headers={"tenant": value})


@pytest.mark.parametrize(
    "options",
    [
        {"queue": "n" * 250},
        {"exchange": "", "routing_key": "default"},
        {"priority": 0, "delivery_mode": 1},
        {"priority": 255, "time_limit": 0.5, "soft_time_limit": 0, "timeout": 5},
        {"expires": 0},
        {"expires": timedelta()},
        {"expires": datetime(2020, 1, 1, tzinfo=UTC)},
        {"headers": {"ratio": 0.5}, "confirm": False, "add_to_parent": False, "retry": False},
        {"queue": None, "expires": None, "ignore_result": None, "task_id": None, "timeout": None},
    ],
)
def test_what_may_be_is_taken(embedded: App, options: Any) -> None:
    assert embedded.task(add).apply_async((1, 2), **options).id


@pytest.mark.parametrize("base", [5, int, App])
def test_a_base_that_is_no_task_is_refused(base: Any) -> None:
    with pytest.raises(ConfigurationError, match="base of a task must be a subclass of Task, got "):
        App("proj").task(base=base)(add)


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ([5], "5 is no mapping and has no annotate"),
        ({"*": 5}, "task 'proj.add' gets 5, expected a mapping"),
        ({"proj.add": "priority"}, "task 'proj.add' gets 'priority', expected a mapping"),
    ],
)
def test_annotations_that_are_none_are_refused(annotations: Any, said: str) -> None:
    app = App("proj", broker="memory://", task_annotations=annotations)
    app.task(name="proj.add")(add)

    with pytest.raises(ConfigurationError, match=f"task_annotations: {said}"):
        app.send_task("proj.add", (1, 2))


def test_annotations_that_no_task_could_have_are_refused_before_any_call_all_at_once() -> None:
    annotations: Any = [
        {"*": {"time_limit": -1}, "fine": {"rate_limit": "10/s", "only_of_its_class": 1}},
        {"a": {"rate_limit": "often"}, "b": {"queue": "b", "exchange": "x"}, "c": {"serializer": "zz"}},
    ]
    app = App("proj", task_annotations=annotations)

    with pytest.raises(ConfigurationError) as caught:
        _ = app.topology

    said = str(caught.value)
    assert "task_annotations, '*': option 'time_limit' must be a finite number of seconds" in said
    assert "; task_annotations, 'a': option 'rate_limit' must be '10/s'" in said
    assert "; task_annotations, 'b': queue='b' and exchange='x' exclude each other" in said
    assert "; task_annotations, 'c': option unknown serializer 'zz'" in said
    assert "fine" not in said


@pytest.mark.parametrize(
    ("attributes", "said"),
    [
        ({"rate_limt": "1/s"}, "unknown option of task 'proj.add': 'rate_limt', did you mean 'rate_limit'?"),
        ({"sensitive": "x"}, "option of task 'proj.add': sensitive takes several"),
    ],
)
def test_an_annotation_that_its_task_cannot_have_is_told_with_the_setting(attributes: Any, said: str) -> None:
    app = App("proj", task_annotations={"proj.add": attributes})
    _ = app.topology

    with pytest.raises(ConfigurationError, match=f"task_annotations: {re.escape(said)}"):
        app.task(name="proj.add")(add)


def test_routes_that_no_call_could_take_are_refused_before_any_call_all_at_once() -> None:
    routes: Any = [
        {"a": {"queu": "b"}, "b.*": {"priority": 999}, "fine": {"queue": "b", "priority": 5}},
        [("c", {"queue": "b", "exchange": "x"}), ("d", {"serializer": "zz"})],
    ]
    app = App("proj", task_routes=routes)

    with pytest.raises(ConfigurationError) as caught:
        _ = app.topology

    said = str(caught.value)
    assert "task_routes[0], 'a': unknown call option 'queu', did you mean 'queue'?; " in said
    assert (
        "task_routes[0], 'b.*': call option 'priority' must be a whole number from 0 to 255, got 999; "
        in said
    )
    assert "task_routes[1], 'c': queue='b' and exchange='x' exclude each other" in said
    assert "task_routes[1], 'd': call option: unknown serializer 'zz'" in said
    assert "fine" not in said


def test_routers_that_cannot_be_imported_are_told_at_the_start() -> None:
    app = App("proj", task_routes=["nowhere.route", "math.nothing", "math.pi"])

    with pytest.raises(RouteError, match=r"nowhere.*; .*nothing.*; .*3\.14.* is no router"):
        app.finalize()


CELERYS_OF_TASKS = [
    "after_return", "backend", "before_start", "countdown", "eta", "lazy", "on_failure", "on_retry", "on_success",
    "reject_on_worker_lost", "result_serializer", "send_events", "shared", "task_id",
]  # fmt: skip
CELERYS_OF_CALLS = ["max_retries", "parent_id", "rate_limit", "root_id"]


@pytest.mark.parametrize("name", CELERYS_OF_TASKS)
def test_an_option_of_a_task_that_only_celery_has_is_answered_with_what_to_do(name: str) -> None:
    decorated: Any = App("proj").task

    with pytest.raises(ConfigurationError, match=f"^option of task 'proj.add': '{name}': [^,]+.*$") as caught:
        decorated(name="proj.add", **{name: True})(add)

    assert "did you mean" not in str(caught.value)
    assert "known:" not in str(caught.value)


@pytest.mark.parametrize("name", CELERYS_OF_CALLS)
def test_an_option_of_a_call_that_only_celery_has_is_answered_with_what_to_do(
    name: str, task: Task[..., Any]
) -> None:
    options: Any = {name: "x"}

    with pytest.raises(ConfigurationError, match=f"^call option '{name}': it (belongs|follows)"):
        task.apply_async((1, 2), **options)


def test_arguments_that_no_retry_takes_are_refused_with_the_task() -> None:
    app = App("proj")
    no_text: Any = {5: "max_retries", "max_retries": 5}

    with pytest.raises(ConfigurationError, match="retry_kwargs: 'max_retires', did you mean 'max_retries'"):
        app.task(autoretry_for=(ValueError,), retry_kwargs={"max_retires": 5})(add)

    with pytest.raises(ConfigurationError, match="retry_kwargs: '5'"):
        app.task(autoretry_for=(ValueError,), retry_kwargs=no_text)(add)

    app.task(autoretry_for=(ValueError,), retry_kwargs={"max_retries": 5, "countdown": 2, "queue": "a"})(add)
