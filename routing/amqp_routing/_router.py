"""From a task's name to its publish options, in the order Celery has.

Routers are asked one after the other and the first that has an answer wins, an empty one included. Within one map or
one list of pairs an exact name comes before every pattern, and patterns are tried in the order written.

See: Celery's `task_routes` and celery/app/routes.py, whose precedence is kept.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol, TypeAlias, cast, runtime_checkable

from amqp_routing._errors import RouteError
from amqp_routing._queue import Queue
from amqp_routing._route import Route, read_route

__all__ = ("Decision", "Router", "RouterCheck", "RouterFunction", "TaskRouter")

RouterFunction: TypeAlias = Callable[..., "Mapping[str, Any] | str | Queue | Route | None"]
"""`(name, args, kwargs, options, task=None)`; `None` passes the question on."""

MAX_CACHED_NAMES = 4096


@runtime_checkable
class TaskRouter(Protocol):
    """A router object, as Celery before 4.0 had them."""

    def route_for_task(
        self, task: str, args: Sequence[Any] | None = None, kwargs: Mapping[str, Any] | None = None
    ) -> Mapping[str, Any] | str | None:
        """The publish options for that call; `None` passes the question on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterCheck:
    """One router that was asked; `reason` says by which rule it answered, or that it did not."""

    router: str
    answered: bool
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How the route of a task was found.

    Attributes:
        task_name: whose.
        route: what was found; `None`: no router answered and the default queue applies.
        checks: the routers asked, in order.
    """

    task_name: str
    route: Route | None
    checks: tuple[RouterCheck, ...]

    def lines(self) -> Iterator[str]:
        """The same for people."""
        yield f"task {self.task_name!r}"
        for check in self.checks:
            yield f"  {'+' if check.answered else '-'} {check.router}: {check.reason}"
        if self.route is None:
            yield "  no route: the default queue"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Call:
    name: str
    args: Sequence[Any]
    kwargs: Mapping[str, Any]
    options: Mapping[str, Any]
    task: object


class _Rule(Protocol):
    """One entry of the list of routers."""

    label: str

    def answer(self, call: _Call) -> tuple[Route | None, str]:
        """The route, and the reason for it or its absence."""
        ...


class _MapRule:
    """Names and patterns; what it answered for a name is remembered, as it depends on nothing else."""

    def __init__(self, pairs: Iterable[tuple[object, object]], label: str) -> None:
        self.label = label
        self.queues: list[Queue] = []
        self.routes: list[tuple[str, Route]] = []
        self._exact: dict[str, Route] = {}
        self._patterns: dict[re.Pattern[str], tuple[Route, str]] = {}
        self._remembered: dict[str, tuple[Route | None, str]] = {}
        for key, value in pairs:
            self._add(key, value)

    def _add(self, key: object, value: object) -> None:
        origin = f"{self.label}, {_shown(key)}"
        route, queue = read_route(value, origin=origin)
        self.routes.append((origin, route))
        if queue is not None:
            self.queues.append(queue)
        if isinstance(key, re.Pattern):
            pattern = cast("re.Pattern[str]", key)
            self._patterns[pattern] = (route, f"matches the pattern {pattern.pattern!r}")
        elif not isinstance(key, str):
            raise RouteError(f"{self.label}: {key!r} is neither a task's name nor a pattern")
        elif "*" in key:
            # Celery's rule: without a star it is a name, whatever other wildcard it holds.
            self._patterns[re.compile(fnmatch.translate(key))] = (route, f"matches {key!r}")
        else:
            self._exact[key] = route

    def answer(self, call: _Call) -> tuple[Route | None, str]:
        known = self._remembered.get(call.name)
        if known is None:
            known = self._look_up(call.name)
            # Names come from callers: without a limit, random ones would fill the memory.
            if len(self._remembered) >= MAX_CACHED_NAMES:
                self._remembered.clear()
            self._remembered[call.name] = known
        return known

    def _look_up(self, name: str) -> tuple[Route | None, str]:
        exact = self._exact.get(name)
        if exact is not None:
            return exact, "has this name"
        for pattern, (route, reason) in self._patterns.items():
            if pattern.match(name):
                return route, reason
        return None, "no name or pattern matches"


class _CallableRule:
    """A function, an object with `route_for_task`, or the dotted name of either, imported when first asked."""

    def __init__(self, target: object, label: str) -> None:
        self.label = label
        self._target = target
        self._is_imported = not isinstance(target, str)

    def answer(self, call: _Call) -> tuple[Route | None, str]:
        value = self._ask(call)
        if value is None:
            return None, "returned None"
        return read_route(value, origin=self.label)[0], f"returned {value!r}"

    def load(self) -> None:
        """Import the router of a dotted name; idempotent.

        Raises:
            RouteError: it cannot be imported, or is no router.
        """
        if not self._is_imported:
            self._target = _imported(cast("str", self._target), self.label)
            self._is_imported = True
        if not callable(self._target) and not isinstance(self._target, TaskRouter):
            raise RouteError(f"{self.label}: {self._target!r} is no router; {_EXPECTED}")

    def _ask(self, call: _Call) -> object:
        self.load()
        if isinstance(self._target, TaskRouter):
            return self._target.route_for_task(call.name, call.args, call.kwargs)
        function = cast("RouterFunction", self._target)
        return function(call.name, call.args, call.kwargs, call.options, task=call.task)


_EXPECTED = (
    "expected a map of names, a list of (name or pattern, options), a function (name, args, kwargs, options, task), "
    "an object with route_for_task, or the dotted name of one of the last two"
)


class Router:
    """Finds the publish options of a task.

    Args:
        routes: one router or a list of them, asked in order. A router is a map from names to routes; a list of
            `(name, route)` pairs; a function `(name, args, kwargs, options, task=None)`; an object with
            `route_for_task(task, args, kwargs)`; or the dotted name of one of the last two, imported when first
            asked. A name with a `*` is a glob; compiled regular expressions are matched from the start of the name. A route
            is a queue's name or a mapping of publish options. `None`: no routes.

    Raises:
        RouteError: something in `routes` is none of these.

    Thread safety: any thread; functions are called on the caller's thread, possibly by several at once.
    """

    def __init__(self, routes: object = None) -> None:
        self._rules: tuple[_Rule, ...] = tuple(_rules(routes))

    def route(
        self,
        task_name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        task: object = None,
    ) -> Route | None:
        """The route of a call, or `None` when no router answers and the default queue applies.

        Raises:
            RouteError: a router answered with something that is no route, or its dotted name cannot be imported.
            Exception: whatever a router function itself raises.
        """
        call = _Call(name=task_name, args=args, kwargs=kwargs or {}, options=options or {}, task=task)
        for rule in self._rules:
            route, _ = rule.answer(call)
            if route is not None:
                return route
        return None

    def decide(
        self,
        task_name: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        task: object = None,
    ) -> Decision:
        """As `route`, with what each router said; for `explain`.

        Raises:
            RouteError, Exception: as `route`.
        """
        call = _Call(name=task_name, args=args, kwargs=kwargs or {}, options=options or {}, task=task)
        checks: list[RouterCheck] = []
        for rule in self._rules:
            route, reason = rule.answer(call)
            checks.append(RouterCheck(router=rule.label, answered=route is not None, reason=reason))
            if route is not None:
                return Decision(task_name=task_name, route=route, checks=tuple(checks))
        return Decision(task_name=task_name, route=None, checks=tuple(checks))

    @property
    def queue_names(self) -> tuple[str, ...]:
        """The queues that maps and pairs name; what functions will answer is not known beforehand."""
        names = (route.queue for _, route in self.routes)
        return tuple(dict.fromkeys(name for name in names if name is not None))

    @property
    def routes(self) -> tuple[tuple[str, Route], ...]:
        """What maps and pairs say, each with its place in words."""
        return tuple(entry for rule in self._rules if isinstance(rule, _MapRule) for entry in rule.routes)

    def load(self) -> None:
        """Import the routers that are given as dotted names; else each is when it is first asked. Idempotent.

        Raises:
            RouteError: some cannot be imported or are no routers, all of them at once.
        """
        faults: list[RouteError] = []
        for rule in self._rules:
            if isinstance(rule, _CallableRule):
                try:
                    rule.load()
                except RouteError as exc:
                    faults.append(exc)
        if faults:
            raise RouteError("; ".join(map(str, faults))) from faults[0]

    @property
    def queues(self) -> tuple[Queue, ...]:
        """Those of them that were given as `Queue` objects."""
        rules = (rule for rule in self._rules if isinstance(rule, _MapRule))
        return tuple(dict.fromkeys(queue for rule in rules for queue in rule.queues))


def _rules(routes: object) -> Iterator[_Rule]:
    if routes is None:
        return
    entries = cast("Sequence[object]", routes) if isinstance(routes, list | tuple) else (routes,)
    pairs: list[tuple[object, object]] = []
    for index, entry in enumerate(entries):
        pair = _pair(entry)
        if pair is not None:
            # Pairs that follow each other are one map, so that a name comes before a pattern there as well.
            pairs.append(pair)
            continue
        if pairs:
            yield _MapRule(pairs, f"routes before {index}")
            pairs = []
        yield _rule(entry, f"routes[{index}]" if isinstance(routes, list | tuple) else "routes")
    if pairs:
        yield _MapRule(pairs, "routes")


def _pair(entry: object) -> tuple[object, object] | None:
    if not isinstance(entry, list | tuple):
        return None
    items = cast("Sequence[object]", entry)
    if len(items) != 2 or not isinstance(items[0], str | re.Pattern):
        return None
    key, value = items
    return key, value


def _rule(entry: object, label: str) -> _Rule:
    match entry:
        case Mapping():
            return _MapRule(cast("Mapping[object, object]", entry).items(), label)
        case list() | tuple():
            return _MapRule(_pairs(cast("Sequence[object]", entry), label), label)
        case str():
            return _CallableRule(entry, f"{label} ({entry})")
        case _ if callable(entry) or isinstance(entry, TaskRouter):
            return _CallableRule(entry, f"{label} ({getattr(entry, '__qualname__', type(entry).__name__)})")
        case _:
            raise RouteError(f"{label}: {entry!r} is no router; {_EXPECTED}")


def _pairs(entries: Sequence[object], label: str) -> Iterator[tuple[object, object]]:
    for entry in entries:
        if not isinstance(entry, list | tuple) or len(cast("Sequence[object]", entry)) != 2:
            raise RouteError(f"{label}: {entry!r} is no pair of a name or pattern and a route")
        key, value = cast("Sequence[object]", entry)
        yield key, value


def _shown(key: object) -> str:
    return repr(cast("re.Pattern[str]", key).pattern) if isinstance(key, re.Pattern) else repr(key)


def _imported(dotted: str, label: str) -> object:
    """The object of `package.module.name` or `package.module:name`; a router class is made an instance of.

    Raises:
        RouteError: there is no such module or name; an error inside the module is its cause.
    """
    module_name, _, attribute = dotted.partition(":") if ":" in dotted else dotted.rpartition(".")
    if not module_name or not attribute:
        raise RouteError(f"{label}: expected the dotted name of a router, e.g. 'project.routes.by_user'")
    try:
        target: object = getattr(import_module(module_name), attribute)
    except (ImportError, AttributeError) as exc:
        raise RouteError(f"{label}: cannot be imported: {exc}") from exc
    if isinstance(target, type) and hasattr(target, "route_for_task"):
        return target()
    return target
