"""One call, packed up: task, arguments and options, as an immutable value."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol, Self, SupportsIndex, TypeVar, cast

from amqp_tasks._moment import others
from amqp_tasks.canvas._fields import NOTHING, ReadOnly, owned
from amqp_tasks.canvas._shown import Shown
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.message import check_stamps, check_task_id, plain_stamp, stamp_values

__all__ = (
    "Sender",
    "Signature",
    "Stamping",
    "StampingVisitor",
    "as_dict",
    "other_sender",
    "sender_or_other",
    "signatures",
    "with_options",
)


class Sender(Protocol):
    """Who can send signatures: that of an app."""

    def send_signature(
        self,
        signature: Signature,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Send it; returns an `AsyncResult`, for a group a `GroupResult`."""

    def apply_signature(
        self,
        signature: Signature,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Any:
        """Run it here; returns its finished result."""

    def send_workflow(
        self, workflow: Any, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> Any:
        """Send named steps, a `Workflow`; returns a `WorkflowResult`."""

    def apply_workflow(self, workflow: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Run named steps here; returns their finished `WorkflowResult`."""

    def call_signature(self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the task's function here; returns what it returns."""

    def new_id(self) -> str:
        """An id for a call."""
        ...

    def has_secrets(self, call: Mapping[str, Any]) -> bool:
        """Whether the task of a signature, or of its dictionary, has `sensitive` arguments: nobody may be shown what it is given."""
        ...


Made = TypeVar("Made", bound="Signature")


class Signature(ReadOnly):
    """A call that has not been made: a dictionary of Celery's shape that cannot be changed.

    What would change it returns a changed copy; only the values that it was given as arguments and options stay the caller's, who can
    change them. Two are equal when their dictionaries are, whatever they may be sent with, and a tuple is equal to a list of the same
    values: so one that was written as JSON and read again is equal to what it was.

    Thread safety: any thread.
    """

    subtask_type: str | None = None
    """`group`, `chain` or `chord`; None for a single task."""

    def __init__(
        self,
        task: str,
        args: Iterable[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        *,
        immutable: bool = False,
        sender: Sender | None = None,
    ) -> None:
        super().__init__(
            task=task,
            args=tuple(args),
            kwargs=ReadOnly(kwargs) if kwargs else NOTHING,
            options=ReadOnly(options) if options else NOTHING,
            subtask_type=self.subtask_type,
            immutable=immutable,
        )
        self.sender = sender

    # -- reading

    @property
    def task(self) -> str:
        """The task's name; for what is composed, `celery.` and its kind."""
        return str(self["task"])

    @property
    def name(self) -> str:
        """The same as `task`."""
        return self.task

    @property
    def args(self) -> tuple[Any, ...]:
        """Positional arguments; those of the call come before them."""
        return self["args"]  # type: ignore[no-any-return]

    @property
    def kwargs(self) -> Mapping[str, Any]:
        """Keyword arguments; those of the call win over them."""
        return self["kwargs"]  # type: ignore[no-any-return]

    @property
    def options(self) -> Mapping[str, Any]:
        """Options of the call, see `CallOptions`."""
        return self["options"]  # type: ignore[no-any-return]

    @property
    def immutable(self) -> bool:
        """True: results of tasks before it are not passed to it."""
        return bool(self["immutable"])

    @property
    def id(self) -> str | None:
        """The id that its call will have; None while it has none."""
        return self.options.get("task_id")

    # -- changed copies

    def clone(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Self:
        """A copy with further arguments (in front) and options; an immutable one takes options only."""
        merged = {**self.options, **options}
        if self.immutable:
            return self.changed(options=merged)
        return self.changed(
            args=(*args, *self.args), kwargs={**self.kwargs, **(kwargs or {})}, options=merged
        )

    def set(self, *, immutable: bool | None = None, **options: Any) -> Self:
        """A copy with these options. Unlike Celery's, it leaves this one as it is."""
        changes: dict[str, Any] = {"options": {**self.options, **options}}
        if immutable is not None:
            changes["immutable"] = immutable
        return self.changed(**changes)

    def replace(
        self,
        args: Sequence[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """A copy with these arguments or options in place of its own; what is None stays. Immutable ones, too.

        Raises:
            ConfigurationError: a value that cannot be; of what is composed, `kwargs` without its parts.
        """
        from amqp_tasks.canvas._compose import as_part

        given = {"args": args, "kwargs": kwargs, "options": options}
        changes = {name: value for name, value in given.items() if value is not None}
        return cast("Self", as_part({**self, **changes}, self.sender))

    def freeze(self, id: str | None = None) -> Self:  # noqa: A002 - the field's name
        """A copy that has the id that its result will have, so that this is known before it is sent; itself, if it has one.

        Unlike Celery's, it leaves this one as it is, and gives no result: send the copy, and that is its result's id.

        Args:
            id: of the call; of a group its own, of other compositions that of the last task. None: a new one.

        Raises:
            ConfigurationError: no id can be so, or nobody is known who could make one.
        """
        if self.id is not None:
            return self
        return self.set(task_id=self._sender().new_id() if id is None else check_task_id(id))

    def link(self, callback: Mapping[str, Any]) -> Self:
        """A copy that has `callback` run with its result."""
        return self._extended("link", callback)

    def link_error(self, errback: Mapping[str, Any]) -> Self:
        """A copy that has `errback` run when it fails."""
        return self._extended("link_error", errback)

    on_error = link_error
    """The same as `link_error`."""

    def stamp(
        self, visitor: StampingVisitor | None = None, *, append_stamps: bool = False, **stamps: Any
    ) -> Self:
        """A copy with these stamps on all its tasks, callbacks and errbacks: names with values that travel with each message.

        A task finds them in `self.request.stamps`, also when it is retried or replaced; `revoke_by_stamped_headers` revokes by
        them. Values are text, numbers, booleans or lists of these.

        Args:
            visitor: is asked for further stamps at each part.
            append_stamps: a name that is there keeps its values and gets these as well; else these take their place.
            stamps: by name, which must not be that of an option.

        Raises:
            ConfigurationError: a value that no stamp can have, or no visitor.
        """
        check_stamps(stamps)
        # Callers without a type checker pass anything, Celery's own visitors for one.
        if not isinstance(visitor, StampingVisitor | None):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ConfigurationError(
                f"a visitor must be a subclass of amqp_tasks.canvas.StampingVisitor, got {type(visitor).__qualname__}"
            )
        return self._stamped(Stamping(stamps, append_stamps, visitor))

    def with_stamps(self, stamps: Mapping[str, Any], *, append_stamps: bool = False) -> Self:
        """The same with a mapping, unchecked: as a message had them."""
        return self._stamped(Stamping(stamps, append_stamps))

    def _stamped(self, stamping: Stamping) -> Self:
        options = stamping.of_links(self.options)
        return self.changed(options=stamping.with_those_for("on_signature", self).of_call(options))

    def _extended(self, option: str, added: Mapping[str, Any]) -> Self:
        known = signatures(self.options.get(option), option)
        [new] = signatures(as_dict(added, f"{option} of {self.task}"))
        return self if new in known else self.changed(options={**self.options, option: (*known, new)})

    def flatten_links(self) -> list[Signature]:
        """Itself and all callbacks, theirs included."""
        from amqp_tasks.canvas._compose import as_part

        links = signatures(self.options.get("link"), "link")
        return [self, *(found for link in links for found in as_part(link, self.sender).flatten_links())]

    def changed(self, **changes: Any) -> Self:
        """A copy with other fields, unchecked."""
        return self.from_fields({**self, **owned(changes)}, self.sender)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], sender: Sender | None = None) -> Self:
        """One with these fields, unchecked and as they are: see `owned`."""
        made = cls.__new__(cls)
        super(Signature, made).__init__(fields)
        made.sender = sender
        return made

    def bound_to(self, sender: Sender | None) -> Self:
        """A copy that is sent with `sender`."""
        return self.from_fields(self, sender)

    # -- sending

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """Send it with further arguments; see `Task.delay`."""
        return self._sender().send_signature(self, args, kwargs, {})

    def apply_async(
        self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it with further arguments and options; see `Task.apply_async`."""
        return self._sender().send_signature(self, args, kwargs or {}, options)

    def apply(self, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None, **options: Any) -> Any:
        """Run it here, as workers would, and return its finished result; nothing is sent."""
        return self._sender().apply_signature(self, args, kwargs or {}, options)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the task's function here and now."""
        return self._sender().call_signature(self, args, kwargs)

    def __invert__(self) -> Any:
        """Send it and wait for what it gives: `~add.s(2, 2)` is `add.s(2, 2).delay().get()`."""
        return self.delay().get()

    def _sender(self) -> Sender:
        return sender_or_other(self._found_sender(), repr(self.task))

    def _found_sender(self) -> Sender | None:
        return self.sender

    def __or__(self, other: Any) -> Any:
        from amqp_tasks.canvas._compose import joined

        return joined(self, other)

    def __ror__(self, other: Any) -> Any:
        return NotImplemented

    def __repr__(self) -> str:
        return Shown(other_sender).repr(self)

    __str__ = __bounded_repr__ = __repr__

    def shown(self, show: Shown, level: int) -> str:
        """Its text for people, made with `show`, which has found that it has no secrets; see `Shown`."""
        return show.call(self.task, self.args, self.kwargs, level)

    # -- a value

    def __hash__(self) -> int:  # type: ignore[override]
        return hash((self.task, self.id))

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        from amqp_tasks.canvas._compose import signature

        return signature, (dict(self),)

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: Any) -> Self:
        return self

    if not TYPE_CHECKING:  # as dict has it, it would change it
        __ior__ = __or__


class StampingVisitor(ABC):
    """Gives stamps to each part of a workflow as `Signature.stamp` comes to it; of the shape of Celery's.

    Each method but those for an end is given a part, which it cannot change, and by name the stamps that come to the part,
    and returns further ones. What a chain, a group or a chord is given goes to all in it. With a key `stamped_headers`
    the result says which names are stamps, as Celery wants it: it must be all.
    """

    @abstractmethod
    def on_signature(self, sig: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """Stamps of a single call."""

    def on_chain_start(self, chain: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """Stamps of all steps of a chain."""
        return {}

    def on_chain_end(self, chain: Signature, **headers: Any) -> None:  # noqa: B027 - need not be defined
        """All steps have been stamped."""

    def on_group_start(self, group: Signature, **headers: Any) -> Mapping[str, Any] | None:
        """Stamps of all members of a group."""
        return {}

    def on_group_end(self, group: Signature, **headers: Any) -> None:  # noqa: B027 - need not be defined
        """All members have been stamped; those of a generator are as they are read."""

    def on_chord_header_start(self, sig: Signature, **header: Any) -> Mapping[str, Any] | None:
        """Stamps of a chord; those of its header's group, unless defined otherwise."""
        return self.on_group_start(sig.header, **header)  # type: ignore[attr-defined]

    def on_chord_header_end(self, sig: Signature, **header: Any) -> None:
        """The header has been stamped."""
        self.on_group_end(sig.header, **header)  # type: ignore[attr-defined]

    def on_chord_body(self, sig: Signature, **header: Any) -> Mapping[str, Any] | None:
        """Further stamps of the body of a chord, beside those of `on_chord_header_start`."""
        return {}

    def on_callback(self, callback: Signature, **header: Any) -> Mapping[str, Any] | None:
        """Stamps of a callback, beside those of `on_signature`."""
        return {}

    def on_errback(self, errback: Signature, **header: Any) -> Mapping[str, Any] | None:
        """Stamps of an errback, likewise."""
        return {}


@dataclass(frozen=True, slots=True)
class Stamping:
    """Stamps that are being put on; in a signature's options, in the form of Celery's."""

    stamps: Mapping[str, Any]
    appends: bool
    visitor: StampingVisitor | None = None

    def with_those_for(self, hook: str, part: Signature) -> Stamping:
        """Together with those that the visitor's `hook` gives a part.

        Raises:
            ConfigurationError: it gave something that is no stamp.
        """
        if self.visitor is None:
            return self
        found = dict(getattr(self.visitor, hook)(part, **self.stamps) or {})
        names = found.pop("stamped_headers", found)
        if unnamed := found.keys() - set(names):
            raise ConfigurationError(
                f"{hook} gave {min(unnamed)!r}, which its stamped_headers do not name: only stamps can be given"
            )
        check_stamps(found)
        if self.appends:
            found |= {
                name: [*stamp_values(self.stamps[name]), *stamp_values(value)]
                for name, value in found.items()
                if name in self.stamps
            }
        return replace(self, stamps={**self.stamps, **found})

    def end(self, hook: str, part: Signature) -> None:
        """Tell the visitor that a part has been stamped."""
        if self.visitor is not None:
            getattr(self.visitor, hook)(part, **self.stamps)

    def of_call(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options of a single call, stamped."""
        names = [*(options.get("stamped_headers") or ())]
        stamped: dict[str, Any] = {}
        for name, value in self.stamps.items():
            if self.appends and name in names:
                value = [*stamp_values(options.get(name)), *stamp_values(value)]  # noqa: PLW2901
            stamped[name] = plain_stamp(value)
        return {**options, **stamped, "stamped_headers": list(dict.fromkeys([*names, *stamped]))}

    def of_links(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Options with their callbacks and errbacks stamped."""
        from amqp_tasks.canvas._compose import signature

        links: dict[str, Any] = {}
        for option, hook in (("link", "on_callback"), ("link_error", "on_errback")):
            if options.get(option):
                found = [signature(link) for link in signatures(options[option], option)]
                links[option] = tuple(link._stamped(self.with_those_for(hook, link)) for link in found)
        return {**options, **links}


def sender_or_other(sender: Sender | None, what: str) -> Sender:
    """Who sends it: the one that is known for it, else the one of the moment.

    Raises:
        ConfigurationError: there is none.
    """
    if sender is None and others:
        sender = others[0]()
    if sender is None:
        raise ConfigurationError(
            f"nobody is known who could send {what:.200}: make it with app.signature(...) or task.s(...)"
        )
    return sender


def other_sender() -> Sender | None:
    """Who would send, at this moment, what nobody is known for; never raises."""
    try:
        return others[0]() if others else None
    except Exception:  # noqa: BLE001 - that there is no app is an answer; this is asked while a text is made
        return None


def as_dict(value: Any, what: str) -> Mapping[str, Any]:
    """`value` as a signature's dictionary.

    Raises:
        ConfigurationError: it is none; says where it was found.
    """
    if not isinstance(value, Mapping) or not isinstance(value.get("task"), str):  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        raise ConfigurationError(
            f"{what} must be a signature, got {value!r:.80}: write task.s(...), not task(...) or task.delay(...)"
        )
    return value  # pyright: ignore[reportUnknownVariableType]


def with_options(part: Made, options: Mapping[str, Any]) -> Made:
    """A copy with further options; callbacks and errbacks come to those that it has."""
    changes = dict(options)
    for name in _ADDED & changes.keys():
        known = signatures(part.options.get(name), name)
        changes[name] = (*known, *(each for each in signatures(changes[name], name) if each not in known))
    return part.set(**changes)


def with_call_options(part: Made, options: Mapping[str, Any]) -> Made:
    """A copy with the options of a call; callbacks and errbacks of a call of several come to those that its parts have."""
    return part.set(**options) if part.subtask_type is None else with_options(part, options)


_ADDED = frozenset({"link", "link_error"})


def signatures(value: Any, what: str = "a callback") -> list[Mapping[str, Any]]:
    """The signatures of an option that takes one or several, as they can travel."""
    from amqp_tasks.canvas._compose import listed

    if value is None:
        return []
    items: list[Any] = [value] if isinstance(value, Mapping) else list(value)
    return [listed(as_dict(item, what)) for item in items]
