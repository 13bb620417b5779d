"""What is composed of signatures: chains, groups, chords, and one message for many items."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain as iter_chain
from itertools import count, islice
from types import NoneType
from typing import Any, Self

from amqp_tasks.canvas._fields import NOTHING, PARTS, check_ends, owned, places
from amqp_tasks.canvas._shown import Shown
from amqp_tasks.canvas._signature import Sender, Signature, Stamping, as_dict, signatures, with_options
from amqp_tasks.errors import ConfigurationError

__all__ = (
    "chain",
    "chord",
    "chunks",
    "group",
    "joined",
    "listed",
    "signature",
    "upgraded",
    "xmap",
    "xstarmap",
)


class _Composed(Signature):
    """Several signatures as one; their sender is that of the first that has one."""

    __slots__ = ()

    def _members(self) -> Iterable[Signature]:
        """The signatures it was made of, in order."""
        raise NotImplementedError

    def _found_sender(self) -> Sender | None:
        if self.sender is not None:
            return self.sender
        return next(
            (found for member in self._members() if (found := member._found_sender()) is not None), None
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The same as `delay`: what is composed cannot be called as a function."""
        return self.delay(*args, **kwargs)


class chain(_Composed):  # noqa: N801 - the field's name
    """One after the other, each with the result of the one before as its first argument.

    Args:
        tasks: signatures, or one iterable of them. Chains among them are taken apart. A group that is followed by something is
            the header of a chord.
        options: of the call of the last one.
    """

    subtask_type = "chain"

    def __init__(self, *tasks: Any, **options: Any) -> None:
        steps = tuple(step for task in _given(tasks) for step in _steps(given_part(task)))
        super().__init__("celery.chain", kwargs={"tasks": steps}, options=options)

    @property
    def tasks(self) -> tuple[Signature, ...]:
        """Its steps, in order."""
        return tuple(as_part(task, self.sender) for task in self.kwargs["tasks"])

    @property
    def first(self) -> Signature:
        """Its first step.

        Raises:
            ConfigurationError: it has none.
        """
        return _checked(self.tasks)[0]

    @property
    def steps(self) -> tuple[Signature, ...]:
        """Its steps with its own options where they belong: id and callbacks with the last, errbacks with each, others with the first."""
        if not self.options:
            return self.tasks
        tasks = upgraded(self.tasks)
        options = dict(self.options)
        for name in _OF_LAST & options.keys():
            tasks[-1] = with_options(tasks[-1], {name: options.pop(name)})
        for errback in signatures(options.pop("link_error", None), "link_error"):
            tasks = [task.link_error(errback) for task in tasks]
        tasks[0] = tasks[0].set(**options)
        return tuple(tasks)

    def _stamped(self, stamping: Stamping) -> Self:
        inner = stamping.with_those_for("on_chain_start", self)
        steps = tuple(step._stamped(inner) for step in self.tasks)
        inner.end("on_chain_end", self)
        return self.changed(kwargs={**self.kwargs, "tasks": steps}, options=inner.of_links(self.options))

    def _members(self) -> Iterable[Signature]:
        return self.tasks

    def shown(self, show: Shown, level: int) -> str:
        """See `Signature.shown`."""
        return " | ".join(show.parts(self.kwargs["tasks"], level))


class group(_Composed):  # noqa: N801 - the field's name
    """All at once; the result has theirs in order.

    Args:
        tasks: signatures, or one iterable of them. Groups among them are taken apart. A generator is read when it is sent,
            once, a window at a time.
        options: of the calls of all members.
    """

    subtask_type = "group"

    def __init__(self, *tasks: Any, **options: Any) -> None:
        found: Any = tasks[0] if len(tasks) == 1 else tasks
        if isinstance(found, Iterator):
            members: Any = _Lazy(found)  # pyright: ignore[reportUnknownArgumentType] - any items
        else:
            members = tuple(member for task in _given(tasks) for member in _flat(given_part(task)))
        super().__init__("celery.group", kwargs={"tasks": members}, options=options)

    @property
    def tasks(self) -> tuple[Signature, ...]:
        """Its members, in order; of a generator, all that it gives."""
        return tuple(self.stream())

    def stream(self) -> Iterator[Signature]:
        """Its members one after the other, without holding them."""
        for task in self.kwargs["tasks"]:
            yield from _flat(as_part(task, self.sender))

    @property
    def is_lazy(self) -> bool:
        """Whether its members come from a generator, which can be read once."""
        return isinstance(self.kwargs["tasks"], _Lazy)

    def own_options(self) -> tuple[str | None, dict[str, Any]]:
        """Its own id, where it has one, and the options of its members."""
        options = dict(self.options)
        ids = options.pop("group_id", None), options.pop("task_id", None)
        return ids[0] or ids[1], options

    def group(self) -> Self:
        """Itself: what `chunks` makes is a group, where Celery's has to be made one."""
        return self

    def listed(self) -> Self:
        """The same with its members held, those of a generator too."""
        if not self.is_lazy:
            return self
        return self.changed(kwargs={**self.kwargs, "tasks": self.tasks})

    def link(self, callback: Mapping[str, Any]) -> Self:
        """Refused: what runs after a group is the body of a chord.

        Raises:
            ConfigurationError: always.
        """
        raise ConfigurationError("a group has no one result to pass on: write group(...) | callback")

    def mapped(self, change: Callable[[Signature], Signature], **options: Any) -> Self:
        """A copy with changed members; those of a generator are changed as they are read."""
        changed = map(change, self.stream())
        members: Any = _Lazy(changed) if self.is_lazy else tuple(changed)
        return self.changed(kwargs={**self.kwargs, "tasks": members}, options=options)

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> Self:
        """A copy whose members start one after the other.

        Args:
            start: seconds until the first is started.
            stop: seconds at most; members beyond it start then. None: no limit.
            step: seconds from one to the next.
        """
        starts = count(start, step) if stop is None else (min(each, stop) for each in count(start, step))
        return self.mapped(lambda member: member.set(countdown=next(starts)), **self.options)

    def link_error(self, errback: Mapping[str, Any]) -> Self:
        """A copy each member of which runs `errback` when it fails."""
        return self.mapped(lambda member: member.link_error(errback), **self.options)

    on_error = link_error

    def on_complete(self, callback: Mapping[str, Any]) -> chord:
        """A chord whose body is `callback`, which runs once all members have ended, however they did, with their outcomes.

        It gets a list of them, in the order of the members: dictionaries with `task_id`, `state` (SUCCESS, FAILURE or REVOKED),
        `value` (what it returned, else None) and `error` (`exc_type`, `exc_message`, `exc_module`, or None). Of a member
        that is a chain or a chord it is the outcome of its end.

        Raises:
            ConfigurationError: `callback` is no signature.
        """
        made = chord(self, callback)
        return made.changed(kwargs={**made.kwargs, "on_complete": True})

    def _stamped(self, stamping: Stamping) -> Self:
        inner = stamping.with_those_for("on_group_start", self)
        stamped = self._with_stamped_members(inner)
        inner.end("on_group_end", self)
        return stamped

    def _with_stamped_members(self, stamping: Stamping) -> Self:
        return self.mapped(lambda member: member._stamped(stamping), **stamping.of_links(self.options))

    def _members(self) -> Iterable[Signature]:
        tasks = self.kwargs["tasks"]
        return map(signature, tasks.first()) if isinstance(tasks, _Lazy) else self.tasks

    def shown(self, show: Shown, level: int) -> str:
        """See `Signature.shown`; a generator is left as it is."""
        return f"group({'...' if self.is_lazy else ', '.join(show.parts(self.kwargs['tasks'], level))})"


class chord(_Composed):  # noqa: N801 - the field's name
    """A group whose results, in a list in order, are the first argument of a body.

    Args:
        header: signatures, or a group.
        body: what gets the list; without it, call the chord with it: `chord(header)(body)`.
        options: of the call of the body.
    """

    subtask_type = "chord"

    def __init__(self, header: Any, body: Any = None, **options: Any) -> None:
        found = header if isinstance(header, group) else group(header)
        given = {"header": found.listed(), "body": None if body is None else given_part(body)}
        super().__init__("celery.chord", kwargs=given, options=options)

    @property
    def header(self) -> group:
        """The group."""
        found: Any = self.kwargs["header"]
        if isinstance(found, list | tuple):
            return group([as_part(each, self.sender) for each in found])  # pyright: ignore[reportUnknownVariableType] - any items
        made = as_part(found, self.sender)
        return made if isinstance(made, group) else group(made)

    @property
    def body(self) -> Signature:
        """What gets their results.

        Raises:
            ConfigurationError: it has none yet.
        """
        found = self.kwargs.get("body")
        if found is None:
            raise ConfigurationError("a chord has no body: write chord(header, body)")
        return as_part(found, self.sender)

    @property
    def is_on_complete(self) -> bool:
        """Whether the body gets the outcomes of all members, failures too: see `group.on_complete`."""
        return self.kwargs.get("on_complete") is True

    def with_body(self, body: Any) -> Self:
        """A copy with this body."""
        return self.changed(kwargs={**self.kwargs, "body": given_part(body)})

    def link(self, callback: Mapping[str, Any]) -> Self:
        """A copy that has `callback` run with the body's result."""
        return self.with_body(self.body.link(callback))

    def link_error(self, errback: Mapping[str, Any]) -> Self:
        """A copy that has `errback` run, once, when a member or the body fails."""
        return self.with_body(self.body.link_error(errback))

    on_error = link_error

    def __call__(self, body: Any = None, **options: Any) -> Any:
        """Send it, with `body` if it has none yet."""
        return (self if body is None else self.with_body(body)).apply_async(**options)

    def _stamped(self, stamping: Stamping) -> Self:
        inner = stamping.with_those_for("on_chord_header_start", self)
        changes: dict[str, Any] = {"header": self.header._with_stamped_members(inner)}
        inner.end("on_chord_header_end", self)
        if self.kwargs.get("body") is not None:
            changes["body"] = self.body._stamped(inner.with_those_for("on_chord_body", self))
        return self.changed(kwargs={**self.kwargs, **changes}, options=inner.of_links(self.options))

    def _members(self) -> Iterable[Signature]:
        body = self.kwargs.get("body")
        return (self.header, *(() if body is None else (as_part(body),)))

    def shown(self, show: Shown, level: int) -> str:
        """See `Signature.shown`."""
        found: Any = self.kwargs["header"]
        body = self.kwargs.get("body")
        header = (
            f"group({', '.join(show.parts(found, level))})"  # pyright: ignore[reportUnknownArgumentType] - any items
            if isinstance(found, list | tuple)
            else show.part(found, level)
        )
        last = "?" if body is None else show.part(body, level)
        return f"{header}.on_complete({last})" if self.is_on_complete else f"{header} | {last}"


_OF_LAST = frozenset({"task_id", "link", "reply_to"})

_KINDS: dict[str, type[Signature]] = {"chain": chain, "group": group, "chord": chord}


def signature(
    value: Any,
    args: Iterable[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    *,
    immutable: bool = False,
    **further: Any,
) -> Signature:
    """A signature from a signature, from its dictionary (Celery's are fine), or from a task's name.

    Args:
        value: signature, dictionary or name; with a signature or a dictionary nothing else can be given.
        args: positional arguments.
        kwargs: keyword arguments.
        options: of the call; their names are checked where it is sent.
        immutable: results of tasks before it are not passed to it.
        further: options by name.

    Raises:
        ConfigurationError: it is none of these, a dictionary in which something is wrong, or more is given beside it.
    """
    if isinstance(value, str):
        return Signature(value, args or (), kwargs, {**(options or {}), **further}, immutable=immutable)
    if args or kwargs or options or immutable or further:
        beside = ", ".join(further) or "arguments, options or immutable"
        raise ConfigurationError(
            f"a signature takes no {beside:.200} beside it: write app.signature(value) for one that is sent with an app,"
            " and clone() or set() of that for a changed copy"
        )
    return given_part(value)


def given_part(value: Any) -> Signature:
    """A part that somebody gives: its dictionary may be anything; see `as_part`.

    Raises:
        ConfigurationError: as `as_part`; or it contains itself.
    """
    if not isinstance(value, Signature):
        check_ends(as_dict(value, "a workflow's part"))
    return as_part(value)


def as_part(value: Any, sender: Sender | None = None) -> Signature:
    """A part of a workflow: a signature, or its dictionary. A bare name is none: in a list of calls it is a slip.

    Args:
        value: the part.
        sender: of what is made of a dictionary.

    Raises:
        ConfigurationError: it is neither, or a dictionary in which something is wrong.
    """
    if isinstance(value, Signature):
        return value
    given = as_dict(value, "a workflow's part")
    fields = {**_EMPTY, **{key: given[key] for key in _EMPTY if key in given}}
    _check(fields)
    kind = fields["subtask_type"] or ""
    fields["kwargs"] = {**fields["kwargs"], **_parts_of(kind, fields["kwargs"])}
    return _KINDS.get(kind, Signature).from_fields(owned(fields), sender)


def _parts_of(kind: str, kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What it was made of, where that is a list: of its own."""
    names = PARTS.get(kind, ())
    return {name: tuple(kwargs[name]) for name in names if isinstance(kwargs.get(name), list)}


_EMPTY: dict[str, Any] = {
    "task": "",
    "args": (),
    "kwargs": NOTHING,
    "options": NOTHING,
    "subtask_type": None,
    "immutable": False,
}


def _check(fields: Mapping[str, Any]) -> None:
    for key, kind, wanted in _FIELDS:
        if not isinstance(fields[key], kind):
            raise ConfigurationError(
                f"{key} of signature {fields['task']!r:.80} must be {wanted}, got {type(fields[key]).__name__}"
            )
    for part in PARTS.get(fields["subtask_type"] or "", ())[:1]:
        if part not in fields["kwargs"]:
            raise ConfigurationError(
                f"a signature of a {fields['subtask_type']} needs {part!r} in its kwargs"
            )


_FIELDS: tuple[tuple[str, type | tuple[type, ...], str], ...] = (
    ("subtask_type", (str, NoneType), "text or null"),
    ("args", (list, tuple), "a list"),
    ("kwargs", dict, "an object"),
    ("options", dict, "an object"),
    ("immutable", bool, "true or false"),
)


def joined(first: Signature, second: Any) -> Signature:
    """`first | second`."""
    if not isinstance(second, Mapping):
        return NotImplemented  # type: ignore[no-any-return]
    second = given_part(second)
    if isinstance(first, group):
        return chord(first, second)
    if isinstance(first, chord):
        return first.with_body(joined(first.body, second))
    if isinstance(first, chain):
        *before, last = first.tasks
        if isinstance(last, group | chord):
            return first.changed(kwargs={**first.kwargs, "tasks": (*before, joined(last, second))})
    return chain(first, second)


def upgraded(steps: Sequence[Signature]) -> list[Signature]:
    """The steps of a chain, in which every group that is followed by something is the header of a chord, also one in the body of
    another: else the errbacks of the whole would be those of its members and of what follows them."""
    done: list[Signature] = []
    for step in _checked(steps):
        if done and ends_with_group(done[-1]):
            done[-1] = joined(done[-1], step)
        else:
            done.append(step)
    return done


def ends_with_group(part: Signature) -> bool:
    """Whether it gives the values of several."""
    match part:
        case chain():
            return any(map(ends_with_group, part.tasks[-1:]))
        case chord():
            return ends_with_group(part.body)
        case _:
            return isinstance(part, group)


def _checked(steps: Sequence[Signature]) -> Sequence[Signature]:
    if not steps:
        raise ConfigurationError("a chain needs at least one task")
    return steps


class _Lazy(Iterable[Any]):
    """A generator, which can be read once, and says so when it is read again."""

    def __init__(self, source: Iterator[Any]) -> None:
        self._source: Iterator[Any] | None = source
        self._held: list[Any] | None = None

    def __iter__(self) -> Iterator[Any]:
        if self._held is not None:
            return iter(self._held)
        source, self._source = self._source, None
        if source is None:
            raise ConfigurationError(
                "the generator of this group has been read: give the group a list to use it more than once"
            )
        return source

    def first(self) -> Sequence[Any]:
        """Its first item, which stays in it; nothing when it has none, or was read."""
        if self._held is not None:
            return self._held[:1]
        if self._source is None:
            return ()
        found = list(islice(self._source, 1))
        self._source = iter_chain(found, self._source)
        return found

    def held(self) -> list[Any]:
        """All of it, kept: from now on it can be read any number of times."""
        if self._held is None:
            self._held = list(self)
        return self._held

    def __json__(self) -> list[Any]:
        return list(self)


def listed(part: Mapping[str, Any]) -> Mapping[str, Any]:
    """A part, and its callbacks and errbacks, as they can travel: with a list for each generator. Itself, where there is none.

    Raises:
        ConfigurationError: a dictionary contains itself.
    """
    if not isinstance(part, Signature):
        check_ends(part)
    changes: dict[str, Any] = {}
    for field, name in places(part):
        fields = changes.get(field, part.get(field))
        found = fields.get(name) if isinstance(fields, Mapping) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        held = _held_in(found)
        if held is not found:
            changes[field] = {**fields, name: held}  # type: ignore[dict-item] # it is a mapping, or nothing was found
    if not changes:
        return part
    return part.changed(**changes) if isinstance(part, Signature) else {**part, **changes}


def _held_in(found: Any) -> Any:
    if isinstance(found, Mapping):
        return listed(found)  # pyright: ignore[reportUnknownArgumentType] - any fields
    if not isinstance(found, _Lazy | list | tuple):
        return found
    items: list[Any] = found.held() if isinstance(found, _Lazy) else list(found)  # pyright: ignore[reportUnknownArgumentType] - any items
    held = [_held_in(item) for item in items]
    is_same = not isinstance(found, _Lazy) and all(new is old for new, old in zip(held, items, strict=True))
    return found if is_same else held  # pyright: ignore[reportUnknownVariableType] - any items


def _given(tasks: tuple[Any, ...]) -> Iterable[Any]:
    if len(tasks) == 1 and not isinstance(tasks[0], Mapping | str) and isinstance(tasks[0], Iterable):
        return tasks[0]  # pyright: ignore[reportUnknownVariableType]
    return tasks


def _steps(step: Signature) -> Iterable[Signature]:
    if not isinstance(step, chain):
        return (step,)
    steps = step.steps
    return (_checked(steps)[0].clone(step.args), *steps[1:]) if step.args else steps


def _flat(member: Signature) -> Iterable[Signature]:
    if not isinstance(member, group):
        return (member,)
    return (with_options(inner, member.options).clone(member.args) for inner in member.stream())


# -- one message for many items


def xmap(task: Signature, items: Iterable[Any], **options: Any) -> Signature:
    """One message that has `task` run for each item, one after the other; the result is a list."""
    return _all("celery.map", task, tuple(items), options)


def xstarmap(task: Signature, items: Iterable[Sequence[Any]], **options: Any) -> Signature:
    """The same, for items that are the positional arguments of one call each."""
    return _all("celery.starmap", task, tuple(tuple(item) for item in items), options)


def _all(name: str, task: Signature, items: tuple[Any, ...], options: Mapping[str, Any]) -> Signature:
    kwargs = {"task": task, "it": items}
    return Signature(name, kwargs=kwargs, options=options, immutable=True, sender=task._found_sender())


def chunks(task: Signature, items: Iterable[Sequence[Any]], n: int, **options: Any) -> group:
    """A group of messages with `n` items each, see `xstarmap`; the result is a list of lists.

    Raises:
        ConfigurationError: `n` is not above 0.
    """
    if n < 1:
        raise ConfigurationError(f"chunks need a number of items above 0, got {n!r}")
    source = iter(items)
    made = group([xstarmap(task, part) for part in iter(lambda: list(islice(source, n)), [])], **options)
    return made.bound_to(task._found_sender())
