"""`Workflow`: named steps, each after the steps that it needs; and what sending them comes to.

Steps that wait for the same steps wait in one gathering. Where a step is all that waits for another, it needs none: it travels
with that one, as the rest of a chain does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from typing import Any, Protocol, Self

from amqp_tasks.canvas._compose import signature
from amqp_tasks.canvas._launch import MAX_HEADER, Gathering, Join, Message, freeze
from amqp_tasks.canvas._signature import Sender, Signature, sender_or_other
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import JOIN_PREFIX, Needed, StepMark, check_task_id

__all__ = ("Step", "Workflow", "freeze_steps", "join_queues", "launch_steps", "waiting_in")

_NAME = re.compile(r"\w[\w.-]{0,99}")
_MAX_ID = 200
"""Characters of a workflow's id: the names of its queues begin with it, and hold 255 bytes."""
_MAX_JOINS = 256
"""Gatherings that may wait for one step: all are named in a header of its message, which has a frame to fit in."""


class Packable(Protocol):
    """What can be packed up as a signature: a task."""

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """Its signature."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        name: its name in the workflow.
        call: its task, with arguments and options.
        after: names of the steps that it needs; their values are its first arguments, in this order.
    """

    name: str
    call: Signature
    after: tuple[str, ...] = ()


class Workflow:
    """Named steps, each of which runs when the steps that it needs have ended well.

    1. `step` adds steps, in any order. 2. `apply_async` sends them, any number of times.

    A step gets the values of the steps in its `after` as its first arguments, in that order; an immutable signature (`.si()`) gets
    none. When a step fails, those that need it are not run, and all others go on; `docs/explanation/workflows.md` tells how.

    Thread safety: to be built by one thread; then any.

    Args:
        id: of the workflow, at most 200 characters; by default each time it is sent a new one. No lock: it is in use only while a step waits
            in a queue of its own, for several others or beside others for the same.
    """

    def __init__(self, *, id: str | None = None) -> None:  # noqa: A002 - the field's name
        self.id = None if id is None else _checked_id(id)
        self._steps: dict[str, Step] = {}

    @property
    def steps(self) -> Mapping[str, Step]:
        """The steps by name, in the order in which they were added."""
        sender = self._known_sender()
        return {
            name: step if step.call.sender is not None else replace(step, call=step.call.bound_to(sender))
            for name, step in self._steps.items()
        }

    def step(self, name: str, task: Packable | Mapping[str, Any], *, after: str | Iterable[str] = ()) -> Self:
        """Add a step; returns the workflow.

        Args:
            name: letters, digits, `_`, `.` and `-`, at most 100.
            task: a task, or a signature of one.
            after: names of the steps that it needs; they may be added later.

        Raises:
            ConfigurationError: the name is taken or no such name, a dependency is there twice, or `task` is no single task.
        """
        _check_name(name)
        if name in self._steps:
            raise ConfigurationError(f"the workflow has a step {name!r} already: give this one another name")
        needed = (after,) if isinstance(after, str) else tuple(after)
        twice = next((each for each in needed if needed.count(each) > 1), None)
        if twice is not None:
            raise ConfigurationError(f"step {name!r} names {twice!r} twice in after=")
        if len(needed) > MAX_HEADER:
            raise ConfigurationError(f"step {name!r} needs {len(needed)} steps, at most {MAX_HEADER} fit")
        self._steps[name] = Step(name=name, call=_call_of(name, task), after=needed)
        return self

    def on_error(self, errback: Mapping[str, Any]) -> Self:
        """Have `errback` run for each of the steps so far that fails; returns the workflow."""
        for name, step in self._steps.items():
            self._steps[name] = replace(step, call=step.call.link_error(errback))
        return self

    def ordered(self) -> tuple[Step, ...]:
        """The steps, each after those that it needs.

        Raises:
            ConfigurationError: there are none, one needs a step that there is not, or they need each other in a circle.
        """
        if not self._steps:
            raise ConfigurationError("a workflow needs at least one step: workflow.step(name, task)")
        for step in self._steps.values():
            for each in step.after:
                if each not in self._steps:
                    known = ", ".join(self._steps)
                    raise ConfigurationError(
                        f"step {step.name!r} is after {each!r:.120}, which is no step of the workflow (its steps: {known:.500})"
                    )
        return _sorted(self._steps)

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it; see `apply_async`."""
        return self.apply_async(args, kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Send it, as a chain or a chord is sent; see `apply_async`."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        timeout: float | None = None,
    ) -> Any:
        """Send it; returns a `WorkflowResult`.

        Args:
            args: further arguments, in front, of the steps that need no other.
            kwargs: likewise by name.
            timeout: seconds for all of it; None: `task_publish_timeout`.

        Raises:
            ConfigurationError: see `ordered`; too many gatherings wait for one step; or steps of a workflow with this id still wait for others.
            InvalidArguments: a step's task cannot take what it would get.
            BulkSendError: a part of its first messages was not sent.
            NotSent, SendUnknown: its only first message was not.
        """
        return self._sender().send_workflow(self, args, kwargs or {}, timeout)

    def apply(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None) -> Any:
        """Run it here, as workers would, and return its finished `WorkflowResult`; nothing is sent."""
        return self._sender().apply_workflow(self, args, kwargs or {})

    def _sender(self) -> Sender:
        return sender_or_other(self._known_sender(), "a workflow")

    def _known_sender(self) -> Sender | None:
        known = (step.call.sender for step in self._steps.values())
        return next((sender for sender in known if sender is not None), None)

    def __repr__(self) -> str:
        shown = (
            f"{step.name} after {', '.join(step.after)}" if step.after else step.name
            for step in self._steps.values()
        )
        return f"<Workflow: {'; '.join(shown):.500}>"


def _checked_id(workflow_id: str) -> str:
    if len(check_task_id(workflow_id)) > _MAX_ID or not workflow_id.isascii():
        raise ConfigurationError(
            f"a workflow's id must be at most {_MAX_ID} ASCII characters, got {workflow_id!r:.60}"
        )
    return workflow_id


def _check_name(name: Any) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ConfigurationError(
            f"a step's name must be 1 to 100 letters, digits, '_', '.' or '-', got {name!r:.120}"
        )


def _call_of(name: str, task: Packable | Mapping[str, Any]) -> Signature:
    given: Any = task
    found = signature(given.s() if not isinstance(given, Mapping) and hasattr(given, "s") else given)
    if found.subtask_type is not None:
        raise ConfigurationError(
            f"step {name!r} must be one task, got a {found.subtask_type}: make each of its tasks a step"
        )
    return found


def _sorted(steps: Mapping[str, Step]) -> tuple[Step, ...]:
    """Each after those that it needs, else in the given order.

    Raises:
        ConfigurationError: they need each other; shows the circle.
    """
    sorter = TopologicalSorter({name: step.after for name, step in steps.items()})
    try:
        return tuple(steps[name] for name in sorter.static_order())
    except CycleError as exc:
        circle: list[str] = exc.args[1]
        raise ConfigurationError(f"steps need each other: {' after '.join(reversed(circle))}") from None


def freeze_steps(
    steps: Iterable[Step],
    workflow_id: str,
    new_id: Callable[[], str],
    options: Callable[[Signature], Mapping[str, Any]],
    *,
    run: str = "",
) -> tuple[Step, ...]:
    """Copies that have their ids, and say which step of which workflow they are; see `freeze`, and `StepMark` for `run`.

    Raises:
        ConfigurationError: two have the same id.
    """
    steps = tuple(steps)
    count = len(_shape(steps).gathered)
    frozen: list[Step] = []
    seen: dict[str | None, str] = {}
    for step in steps:
        mark = StepMark(workflow_id=workflow_id, step=step.name, joins=count, run=run)
        headers: dict[str, Any] = {**(step.call.options.get("headers") or {}), **mark.header}
        call = freeze(step.call.set(headers=headers), new_id, options)
        if call.id in seen:
            raise ConfigurationError(
                f"steps {seen[call.id]!r} and {step.name!r} have the same task_id {call.id!r}"
            )
        seen[call.id] = step.name
        frozen.append(replace(step, call=call))
    return tuple(frozen)


def launch_steps(
    steps: Sequence[Step], workflow_id: str, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
) -> Iterator[Message | Gathering]:
    """The gatherings and messages that frozen steps begin with; the gatherings first.

    Args:
        steps: all of them, each after those that it needs.
        workflow_id: of the workflow.
        args: further arguments of those that need no other.
        kwargs: likewise.

    Raises:
        ConfigurationError: too many gatherings wait for one step.
    """
    shape = _shape(steps)
    joins: dict[str, list[Join]] = {step.name: [] for step in steps}
    for number, after in enumerate(shape.gathered):
        for index, name in enumerate(after):
            joins[name].append(Join(queue=_queue(workflow_id, number), index=index, size=len(after)))
    crowded = next((name for name, found in joins.items() if len(found) > _MAX_JOINS), None)
    if crowded is not None:
        raise ConfigurationError(
            f"step {crowded!r} is needed in {len(joins[crowded])} different combinations with others, at most {_MAX_JOINS}"
            " fit: let a step between gather some of them"
        )

    def message(step: Step) -> Message:
        last, rest = step, list[Signature]()
        while last.name in shape.next:
            last = shape.next[last.name]
            rest.append(last.call)
        return Message(call=step.call, rest=rest[::-1], joins=tuple(joins[last.name]))

    # Of each step, the call that the steps before it begin with.
    begins: dict[str, Signature] = {}
    for step in steps:
        begins[step.name] = begins[step.after[0]] if step.after else step.call.clone(args, kwargs)
    needed = _needs(steps, shape, workflow_id)
    for number, (after, waiting) in enumerate(shape.gathered.items()):
        yield Gathering(
            queue=_queue(workflow_id, number), size=len(after), steps=tuple(map(message, waiting)),
            needs=list(map(needed, after)), where=begins[after[0]],
        )  # fmt: skip
    for step in steps:
        if not step.after:
            yield replace(message(step), call=begins[step.name])


def _needs(steps: Iterable[Step], shape: _Shape, workflow_id: str) -> Callable[[str], Needed]:
    """What says of a step how those see it that wait for it."""
    by_name = {step.name: step for step in steps}
    before = {following.name: name for name, following in shape.next.items()}
    waiting = _queues(shape, workflow_id)

    def needed(name: str) -> Needed:
        travelling = [name]
        while travelling[-1] in before:
            travelling.append(before[travelling[-1]])
        calls = [by_name[each].call for each in travelling]
        return Needed(
            name=name,
            behind=waiting.get(travelling[-1], ""),
            members=[(call.id or "", str(call.options.get("reply_to") or "")) for call in calls],
        )

    return needed


def waiting_in(steps: Iterable[Step], workflow_id: str) -> dict[str, str]:
    """The join queue of each step that waits in one; of the others, those that need something travel with what they need."""
    return _queues(_shape(steps), workflow_id)


def _queues(shape: _Shape, workflow_id: str) -> dict[str, str]:
    gathered = enumerate(shape.gathered.values())
    return {step.name: _queue(workflow_id, number) for number, found in gathered for step in found}


def join_queues(workflow_id: str, count: int) -> list[str]:
    """The names of all join queues of a workflow that has so many."""
    return [_queue(workflow_id, number) for number in range(count)]


def _queue(workflow_id: str, number: int) -> str:
    return f"{JOIN_PREFIX}{workflow_id}.{number}"


@dataclass(frozen=True, slots=True)
class _Shape:
    """How steps hang together.

    Attributes:
        next: of a step, the one that travels with it.
        gathered: the other steps that need any, by what they need.
    """

    next: Mapping[str, Step]
    gathered: Mapping[tuple[str, ...], Sequence[Step]]


def _shape(steps: Iterable[Step]) -> _Shape:
    waiting: dict[tuple[str, ...], list[Step]] = {}
    for step in steps:
        if step.after:
            waiting.setdefault(step.after, []).append(step)
    needed: dict[str, int] = {}
    for after in waiting:
        for name in after:
            needed[name] = needed.get(name, 0) + 1
    following = {
        after[0]: found[0]
        for after, found in waiting.items()
        if len(after) == 1 and len(found) == 1 and needed[after[0]] == 1
    }
    gathered = {after: found for after, found in waiting.items() if after[0] not in following}
    return _Shape(following, gathered)
