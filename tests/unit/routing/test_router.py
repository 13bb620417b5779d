"""What a Router takes, asks and refuses; its precedence is compared with Celery's in the property tests."""

from __future__ import annotations

import re
import sys
import types
from typing import Any

import pytest

from amqp_routing import Queue, Route, RouteError, Router


def test_text_is_the_queue() -> None:
    assert Router({"tasks.add": "low-priority"}).route("tasks.add") == Route(queue="low-priority")


def test_a_mapping_is_publish_options() -> None:
    route = Router({"tasks.add": {"queue": "hipri", "priority": 9}}).route("tasks.add")

    assert route == Route(queue="hipri", options={"priority": 9})


def test_without_an_answer_there_is_no_route() -> None:
    assert Router().route("tasks.add") is None
    assert Router({"tasks.*": "q"}).route("other") is None


def test_a_name_comes_before_a_pattern() -> None:
    assert Router({"tasks.*": "many", "tasks.add": "one"}).route("tasks.add") == Route(queue="one")
    assert Router([("tasks.*", "many"), ("tasks.add", "one")]).route("tasks.add") == Route(queue="one")


def test_patterns_are_tried_in_order() -> None:
    router = Router([(re.compile(r"tasks\.(add|sub)$"), "arithmetic"), ("tasks.*", "rest")])

    assert router.route("tasks.sub") == Route(queue="arithmetic")
    assert router.route("tasks.div") == Route(queue="rest")


def test_routers_are_asked_in_order_and_an_empty_answer_ends_the_search() -> None:
    router = Router([{"a": {}}, {"a": "later", "b": "later"}])

    assert router.route("a") == Route()
    assert router.route("b") == Route(queue="later")


def test_a_function_gets_the_whole_call() -> None:
    calls: list[Any] = []

    def by_user(name: str, args: Any, kwargs: Any, options: Any, task: object = None) -> str | None:
        calls.append((name, args, kwargs, options, task))
        return "vip" if kwargs.get("user") == 1 else None

    router = Router([by_user, {"*": "usual"}])

    assert router.route("t", (1,), {"user": 1}, {"priority": 2}, task="type") == Route(queue="vip")
    assert router.route("t", (1,), {"user": 2}) == Route(queue="usual")
    assert calls == [("t", (1,), {"user": 1}, {"priority": 2}, "type"), ("t", (1,), {"user": 2}, {}, None)]


class ByName:
    """A router as Celery before 4.0 had them."""

    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return {"queue": f"of-{task}"}


@pytest.fixture
def project(monkeypatch: pytest.MonkeyPatch) -> types.ModuleType:
    module = types.ModuleType("project_routes")
    vars(module).update(ByName=ByName, by_name=lambda name, *_, **__: f"for-{name}", number=3)
    monkeypatch.setitem(sys.modules, "project_routes", module)
    return module


@pytest.mark.parametrize(
    ("dotted", "queue"),
    [
        ("project_routes.ByName", "of-t"),
        ("project_routes:ByName", "of-t"),
        ("project_routes.by_name", "for-t"),
    ],
)
def test_a_dotted_name_is_imported_when_first_asked(
    project: types.ModuleType, dotted: str, queue: str
) -> None:
    assert Router(dotted).route("t") == Route(queue=queue)
    assert Router([{"t": "first"}, "missing.module"]).route("t") == Route(queue="first")


@pytest.mark.parametrize(
    ("dotted", "message"),
    [
        ("missing_module.name", "cannot be imported: No module named 'missing_module'"),
        ("project_routes.nothing", "cannot be imported: .*nothing"),
        ("bare", "expected the dotted name"),
        ("project_routes.number", "3 is no router"),
    ],
)
def test_a_dotted_name_that_is_no_router_is_told(
    project: types.ModuleType, dotted: str, message: str
) -> None:
    with pytest.raises(RouteError, match=message):
        Router(dotted).route("t")


@pytest.mark.parametrize(
    ("routes", "message"),
    [
        (3, "routes: 3 is no router; expected a map"),
        ([3], r"routes\[0\]: 3 is no router"),
        ({"a": 3}, "routes, 'a': 3 is no route"),
        ({"a": None}, "None is no route"),
        ({"a": {1: "b"}}, "publish option 1 is not text"),
        ({"a": {"queue": 5}}, "queue is 5, expected a name or a Queue"),
        ({"a": {"exchange": 5}}, "exchange is 5, expected a name"),
        ({5: "q"}, "5 is neither a task's name nor a pattern"),
        ([[("a", "b", "c")]], "is no pair"),
    ],
)
def test_what_is_no_route_is_refused_when_the_router_is_built(routes: Any, message: str) -> None:
    with pytest.raises(RouteError, match=message):
        Router(routes)


def test_a_function_that_answers_nonsense_is_named() -> None:
    def nonsense(*_: Any, **__: Any) -> Any:
        return 5

    with pytest.raises(RouteError, match=r"nonsense\): 5 is no route"):
        Router(nonsense).route("t")


def test_queues_of_maps_are_known_beforehand() -> None:
    vip = Queue("vip", max_length=10)
    router = Router([{"a": "one", "b": {"queue": vip}, "c": {"priority": 3}}, lambda *_, **__: "unknown"])

    assert router.queue_names == ("one", "vip")
    assert router.queues == (vip,)
    assert router.route("b") == Route(queue="vip")


def test_what_was_looked_up_is_remembered_within_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("amqp_routing._router.MAX_CACHED_NAMES", 3)
    router = Router({"t*": "q"})

    found = [router.route(f"t{number}") for number in range(10)]

    assert found == [Route(queue="q")] * 10


def test_a_call_that_gives_none_has_not_given_it() -> None:
    route = Route(queue="q", options={"priority": 3})

    assert route.merged_into({"queue": None, "priority": None, "expires": None}) == {
        "queue": "q",
        "priority": 3,
        "expires": None,
    }
