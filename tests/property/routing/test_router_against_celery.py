"""Our Router takes the decisions Celery's takes for the same `task_routes`."""

from __future__ import annotations

import re
from typing import Any

from celery.app.routes import Router as CeleryRouter
from celery.app.routes import prepare
from hypothesis import given, settings
from hypothesis import strategies as st

from amqp_routing import Route, Router

_NAMES = ("a", "b", "a.b", "a.c", "a.b.c", "a?b")
_KEYS = (*_NAMES, "*", "a.*", "*.c", "a.?*", "a.b*")

names = st.sampled_from(_NAMES)
_options = st.fixed_dictionaries(
    {},
    optional={
        "queue": st.sampled_from(("q1", "q2")),
        "exchange": st.just("e"),
        "routing_key": st.just("k"),
        "priority": st.integers(0, 9),
    },
)
_routes = st.one_of(_options, st.sampled_from(("queue-1", "queue-2")))
_keys = st.one_of(st.sampled_from(_KEYS), st.sampled_from((re.compile("a"), re.compile(r".*c$"))))
_pairs = st.lists(st.tuples(_keys, _routes), max_size=4)


@st.composite
def _functions(draw: st.DrawFn) -> Any:
    answers: dict[str, Any] = draw(st.dictionaries(names, st.one_of(st.none(), _routes), max_size=3))

    def route(name: str, args: Any, kwargs: Any, options: Any, task: Any = None, **_: Any) -> Any:
        found = answers.get(name)
        return dict(found) if isinstance(found, dict) else found

    return route


class _Old:
    def __init__(self, name: str, route: Any) -> None:
        self.name, self.route = name, route

    def route_for_task(self, task: str, args: Any = None, kwargs: Any = None) -> Any:
        return self.route if task == self.name else None


_routers = st.one_of(_pairs.map(dict), _pairs, _functions(), st.builds(_Old, names, _routes))


def _celerys(routes: Any, name: str) -> Any:
    """What Celery's list of routers answers; None when none does."""
    return CeleryRouter(prepare(routes)).lookup_route(name, (), {}, {}, None)


def _as_options(route: Route | None) -> Any:
    if route is None:
        return None
    found = {
        "queue": route.queue,
        "exchange": route.exchange,
        "routing_key": route.routing_key,
        **route.options,
    }
    return {key: value for key, value in found.items() if value is not None}


# A two-pair list in a list reads as one pair of ours only if its first item is a name; Celery's never is.
@settings(max_examples=400)
@given(routes=st.lists(_routers, max_size=4), name=names)
def test_the_router_answers_as_celerys(routes: list[Any], name: str) -> None:
    theirs = _celerys(routes, name)

    ours = _as_options(Router(routes).route(name, (), {}, {}))

    assert ours == ({"queue": theirs} if isinstance(theirs, str) else theirs)


@settings(max_examples=100)
@given(pairs=_pairs, name=names)
def test_pairs_at_the_top_are_one_map(pairs: list[Any], name: str) -> None:
    assert Router(pairs).route(name) == Router([pairs]).route(name)


@settings(max_examples=100)
@given(routes=st.lists(_routers, max_size=4), name=names)
def test_deciding_and_routing_agree_again_and_again(routes: list[Any], name: str) -> None:
    router = Router(routes)

    first = router.route(name)

    assert [router.route(name), router.decide(name).route] == [first, first]


@settings(max_examples=200)
@given(route=_options, call=_options)
def test_what_a_call_gives_wins_over_its_route(route: dict[str, Any], call: dict[str, Any]) -> None:
    merged = _route(route).merged_into(call)

    assert {key: merged[key] for key in call} == call
    if "queue" in call:
        assert merged.get("exchange") == call.get("exchange")
        assert merged.get("routing_key") == call.get("routing_key")
    elif "exchange" in call:
        assert "queue" not in merged
    else:
        assert merged == {**route, **call}


def _route(options: dict[str, Any]) -> Route:
    found = Router([("task", options)]).route("task")
    assert found is not None
    return found
