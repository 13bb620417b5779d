"""One call, packed up: task, arguments and options, as an immutable value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, Protocol, Self, SupportsIndex

from amqp_tasks.errors import ConfigurationError

__all__ = ("Sender", "Signature", "as_dict", "send_others_with", "signatures")

_MAX_SHOWN = 60


class Sender(Protocol):
    """Who can send signatures: an app."""

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

    def call_signature(self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Call the task's function here; returns what it returns."""


class Signature(dict[str, Any]):
    """A call that has not been made: a dictionary of Celery's shape that cannot be changed.

    What would change it returns a changed copy. Two are equal when their dictionaries are, whatever they may be sent with,
    so one that was written as JSON and read again is equal to what it was.

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
            args=list(args),
            kwargs=dict(kwargs or {}),
            options=dict(options or {}),
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
        return tuple(self["args"])

    @property
    def kwargs(self) -> dict[str, Any]:
        """Keyword arguments; those of the call win over them. Treat as read-only."""
        return self["kwargs"]  # type: ignore[no-any-return]

    @property
    def options(self) -> dict[str, Any]:
        """Options of the call, see `CallOptions`. Treat as read-only."""
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
            args=[*args, *self["args"]], kwargs={**self.kwargs, **(kwargs or {})}, options=merged
        )

    def set(self, *, immutable: bool | None = None, **options: Any) -> Self:
        """A copy with these options. Unlike Celery's, it leaves this one as it is."""
        changes: dict[str, Any] = {"options": {**self.options, **options}}
        if immutable is not None:
            changes["immutable"] = immutable
        return self.changed(**changes)

    def link(self, callback: Mapping[str, Any]) -> Self:
        """A copy that has `callback` run with its result."""
        return self._extended("link", callback)

    def link_error(self, errback: Mapping[str, Any]) -> Self:
        """A copy that has `errback` run when it fails."""
        return self._extended("link_error", errback)

    on_error = link_error
    """The same as `link_error`."""

    def _extended(self, option: str, added: Mapping[str, Any]) -> Self:
        known = signatures(self.options.get(option), option)
        new = as_dict(added, f"{option} of {self}")
        return self if new in known else self.changed(options={**self.options, option: [*known, new]})

    def changed(self, **changes: Any) -> Self:
        """A copy with other fields, unchecked."""
        return self.from_fields({**self, **changes}, self.sender)

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any], sender: Sender | None = None) -> Self:
        """One with these fields, unchecked."""
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

    def _sender(self) -> Sender:
        sender = self._found_sender()
        if sender is None and _others:
            sender = _others[0]()
        if sender is None:
            raise ConfigurationError(
                f"nobody is known who could send {self!r:.200}: make it with app.signature(...) or task.s(...)"
            )
        return sender

    def _found_sender(self) -> Sender | None:
        return self.sender

    def __or__(self, other: Any) -> Any:
        from amqp_tasks.canvas._compose import joined

        return joined(self, other)

    def __ror__(self, other: Any) -> Any:
        return NotImplemented

    def __repr__(self) -> str:
        shown = [*map(_short, self.args), *(f"{name}={_short(value)}" for name, value in self.kwargs.items())]
        return f"{self.task}({', '.join(shown)})"

    __str__ = __repr__

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

    def _refuse(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise TypeError("a signature cannot be changed: set(), clone() and link() return a changed copy")

    # Whatever the arguments are, the answer is the same, so their types are nobody's business.
    if not TYPE_CHECKING:
        __ior__ = __or__
        __setitem__ = __delitem__ = update = setdefault = pop = popitem = clear = _refuse


_others: list[Callable[[], Sender]] = []


def send_others_with(find: Callable[[], Sender]) -> None:
    """Have signatures that nobody is known for sent by whom `find` gives."""
    _others[:] = [find]


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


def signatures(value: Any, what: str = "a callback") -> list[Mapping[str, Any]]:
    """The signatures of an option that takes one or several."""
    if value is None:
        return []
    items: list[Any] = [value] if isinstance(value, Mapping) else list(value)
    return [as_dict(item, what) for item in items]


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"
