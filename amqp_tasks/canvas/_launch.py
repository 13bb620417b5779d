"""What sending a workflow comes to: messages that can go out now, and queues that gather results for what comes later.

Pure: a signature in, a plan out. The caller of a workflow and the worker that takes its next step use the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

from amqp_tasks.canvas._compose import (
    chain,
    chord,
    ends_with_group,
    group,
    joined,
    listed,
    signature,
    upgraded,
)
from amqp_tasks.canvas._signature import Signature, signatures, with_options
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import JOIN_PREFIX, Needed

__all__ = (
    "ACCUMULATE",
    "Gathering",
    "Join",
    "Member",
    "Message",
    "abandoned",
    "accumulated",
    "added_index",
    "calls_in",
    "first_errbacks",
    "freeze",
    "launch",
    "placed_in",
)

MAX_HEADER = 60_000
"""Who takes a join holds all of it unacked, and a channel holds 65,535 messages."""
ACCUMULATE = "celery.accumulate"
"""The task that returns one of its arguments: the body of a group whose results something waits for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Join:
    """That a task's outcome is wanted by a gathering.

    Attributes:
        queue: its queue.
        index: whose outcome it is.
        size: how many outcomes there are to be, at least.
    """

    queue: str
    index: int
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One message to be sent now.

    Attributes:
        call: task, arguments and options; has its id.
        rest: what follows it, the next one last.
        joins: who wants the outcome of the last of `rest`, or of this if nothing follows.
        group, group_index: the group it is a member of, and its place.
    """

    call: Signature
    rest: Sequence[Mapping[str, Any]] = ()
    joins: tuple[Join, ...] = ()
    group: str | None = None
    group_index: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathering:
    """A queue to be made, in which the outcomes of several tasks come together: a chord's header, what named steps depend on.

    Attributes:
        queue: its name.
        size: how many outcomes it waits for.
        body: what is run with the list of their values; None for named steps.
        steps: named steps that are run with their values as arguments.
        on_complete: the body is run with the members' outcomes, however they ended.
        needs: those whose outcomes it waits for, where they are named steps.
        where: the first of the calls that fill it, as it is sent: the watch goes where that goes.
        rest, joins: as of a `Message`, for the body.
    """

    queue: str
    size: int
    body: Signature | None = None
    on_complete: bool = False
    steps: Sequence[Message] = ()
    needs: Sequence[Needed] = ()
    where: Signature
    rest: Sequence[Mapping[str, Any]] = ()
    joins: tuple[Join, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A task in a workflow that is given up.

    Attributes:
        task_id: its id.
        reply_to: who is told of its end; empty for nobody.
    """

    task_id: str
    reply_to: str


def freeze(
    part: Signature, new_id: Callable[[], str], options: Callable[[Signature], Mapping[str, Any]]
) -> Signature:
    """A copy in which every task has its id, so that their results can be asked for before they are sent.

    Args:
        part: what is to be sent.
        new_id: makes an id.
        options: further options of a single task (where its result goes); its own win.
    """
    if isinstance(part, chain):
        steps = tuple(freeze(_listed(step), new_id, options) for step in upgraded(part.steps))
        return part.changed(kwargs={**part.kwargs, "tasks": steps}, options={})
    if isinstance(part, group):
        group_id, own = part.own_options()
        return part.mapped(
            lambda member: freeze(with_options(member, own) if own else member, new_id, options),
            group_id=group_id or new_id(),
        )
    if isinstance(part, chord):
        body = _listed(with_options(part.body, part.options))
        kwargs = {"header": freeze(part.header, new_id, options), "body": freeze(body, new_id, options)}
        return part.changed(kwargs={**part.kwargs, **kwargs}, options={})
    own = {name: value for name, value in listed(part)["options"].items() if value is not None}
    return part.changed(options={**options(part), "task_id": new_id(), **own})


def _listed(step: Signature) -> Signature:
    """A step as it can travel: a group of a generator holds its members."""
    return step.listed() if isinstance(step, group) else step


def launch(
    part: Signature,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    rest: Sequence[Mapping[str, Any]] = (),
    joins: tuple[Join, ...] = (),
    group_id: str | None = None,
    group_index: int | None = None,
) -> Iterator[Message | Gathering]:
    """The messages and gatherings that a frozen workflow begins with; a gathering before the messages that fill it.

    Args:
        part: what is sent.
        args: further arguments of the first task, or of all of the first group: the result of what was before it.
        kwargs: likewise.
        rest: what follows, the next one last.
        joins: who wants the outcome of the last.
        group_id, group_index: the group that `part` is a member of, and its place.
    """
    given = _Given(args, kwargs or {})
    if isinstance(part, chain):
        first, *others = part.tasks
        following = [*rest, *reversed(others)]
        given = given.over(part)
        yield from launch(
            first, args=given.args, kwargs=given.kwargs, rest=following, joins=joins, group_id=group_id,
            group_index=group_index,
        )  # fmt: skip
    elif isinstance(part, chord):
        yield from _launch_chord(
            part.header, part.body, given.over(part), rest, joins, on_complete=part.is_on_complete
        )
    elif isinstance(part, group):
        if rest:
            *later, body = rest
            yield from _launch_chord(part, signature(body), given, later, joins)
        elif joins:
            yield from _launch_chord(part, _accumulate(part), given, (), joins)
        else:
            given = given.over(part)
            for index, member in enumerate(part.stream()):
                yield from launch(
                    member,
                    args=given.args,
                    kwargs=given.kwargs,
                    group_id=part.options.get("group_id"),
                    group_index=index,
                )
    else:
        call = part.clone(given.args, given.kwargs) if given.args or given.kwargs else part
        yield Message(call=call, rest=rest, joins=joins, group=group_id, group_index=group_index)


@dataclass(frozen=True, slots=True)
class _Given:
    args: Sequence[Any]
    kwargs: Mapping[str, Any]

    def over(self, part: Signature) -> _Given:
        """Together with the arguments that what is composed was given itself."""
        return _Given((*self.args, *part.args), self.kwargs)


def _launch_chord(
    header: group,
    body: Signature,
    given: _Given,
    rest: Sequence[Mapping[str, Any]],
    joins: tuple[Join, ...],
    *,
    on_complete: bool = False,
) -> Iterator[Message | Gathering]:
    tasks = header.tasks
    if not tasks:
        yield from launch(body, args=([],), rest=rest, joins=joins)
        return
    if len(tasks) > MAX_HEADER:
        raise ConfigurationError(
            f"the header of a chord has {len(tasks)} tasks, at most {MAX_HEADER} fit: use task.chunks(...), or chords of chords"
        )
    given = given.over(header)
    group_id = header.options.get("group_id")
    queue = f"{JOIN_PREFIX}{group_id}"
    where = _first_of(tasks, given) or _list_maker()
    yield Gathering(
        queue=queue, size=len(tasks), body=body, on_complete=on_complete, where=where, rest=rest, joins=joins
    )
    for index, member in enumerate(tasks):
        join = Join(queue=queue, index=index, size=len(tasks))
        yield from launch(
            member, args=given.args, kwargs=given.kwargs, joins=(join,), group_id=group_id, group_index=index
        )


def added_index(index: int, number: int) -> int:
    """The index of a task that another one added to a header: far above those of headers, and the same in each run.

    Args:
        index: of the task that adds.
        number: how many it had added before.
    """
    digest = blake2b(f"{index}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest) >> 2 | 1 << 62  # a header of AMQP holds 63 bits


def accumulated(part: Signature) -> Signature:
    """A part as one value: of what ends with a group, the list of its members'."""
    return joined(part, _list_maker()) if ends_with_group(part) else part


def _accumulate(part: group) -> Signature:
    """The body for a group at the end of something that is itself waited for: its value is the list of values."""
    return _list_maker(task_id=f"{part.options.get('group_id')}-all", ignore_result=True)


def _list_maker(**options: Any) -> Signature:
    return Signature(ACCUMULATE, kwargs={"index": 0}, options=options)


def _first(part: Signature, given: _Given) -> Signature | None:
    """The first task of a part, with the arguments that `launch` gives it; None: it has none."""
    if isinstance(part, chord):
        return _first_of(part.header.tasks, given.over(part).over(part.header)) or _first(
            part.body, _Given(([],), {})
        )
    if isinstance(part, group | chain):
        return _first_of(part.tasks, given.over(part))
    return part.clone(given.args, given.kwargs)


def _first_of(parts: Iterable[Signature], given: _Given) -> Signature | None:
    return next((found for part in parts if (found := _first(part, given)) is not None), None)


def calls_in(part: Signature) -> Iterator[Signature]:
    """All tasks of a frozen workflow, without callbacks and errbacks; not those of a generator, which can be read once."""
    return (call for call, _, _ in placed_in(part, None, None))


def placed_in(
    part: Signature, before: Sequence[Any] | None, value: Any, where: str = ""
) -> Iterator[tuple[Signature, Sequence[Any] | None, str]]:
    """The same tasks, each with what `launch` has come before its own arguments there, and with its place for people.

    Args:
        part: a frozen workflow.
        before: what comes before the arguments of what it begins with; None: not known, and neither given for these.
        value: stands for what one gives to the next.
        where: the place of the whole.
    """
    if isinstance(part, group) and part.is_lazy:
        return
    given = None if before is None else (*before, *part.args)
    if isinstance(part, chain):
        for number, step in enumerate(part.tasks, 1):
            place = f"{where}step {number} of a chain: "
            yield from placed_in(step, given if number == 1 else (value,), value, place)
    elif isinstance(part, group):
        for number, member in enumerate(part.tasks, 1):
            yield from placed_in(member, given, value, f"{where}member {number} of a group: ")
    elif isinstance(part, chord):
        yield from placed_in(part.header, given, value, where)
        yield from placed_in(part.body, (value,), value, f"{where}body of a chord: ")
    else:
        yield part, before, where


def abandoned(part: Signature) -> Iterator[Member]:
    """All tasks of a frozen workflow that has not begun and never will."""
    for call in calls_in(part):
        if call.id:
            yield Member(task_id=call.id, reply_to=str(call.options.get("reply_to") or ""))


def first_errbacks(part: Signature) -> tuple[str, list[Any]]:
    """Id and errbacks of what a part begins with; of a chord, of its body."""
    match part.subtask_type:
        case "chain":
            return first_errbacks(part.steps[0])  # type: ignore[attr-defined]
        case "chord":
            return first_errbacks(part.body)  # type: ignore[attr-defined]
        case "group":
            found = [first_errbacks(member) for member in part.tasks]  # type: ignore[attr-defined]
            several: list[Any] = []
            for _, errbacks in found:
                several += [errback for errback in errbacks if errback not in several]
            return (found[0][0] if found else ""), several
        case _:
            return part.id or "", list(signatures(part.options.get("link_error")))
