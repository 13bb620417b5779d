"""What is known to be wrong with the parts of a workflow before anything of it is sent.

Each part is checked as its own call is where that is made. A later one gets a value that is not there yet: its other arguments are
checked around it, and routes are not asked. What a workflow begins with is made before anything is sent, which checks its arguments.
Workers do not come here: what only they find, or another client wrote, ends as `docs/explanation/workflows.md` says.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._arguments import UNKNOWN
from amqp_tasks.app._errbacks import separate, takes_exception
from amqp_tasks.app._given import OF_ITEMS, item_task
from amqp_tasks.app._signature_options import call_options, check_option_names
from amqp_tasks.canvas import freeze, placed_in, signature, signatures
from amqp_tasks.errors import ConfigurationError, InvalidArguments, UnknownQueue
from amqp_tasks.message import check_task_id

if TYPE_CHECKING:
    from amqp_tasks.app._calls import Calls
    from amqp_tasks.canvas import Signature, Step

__all__ = ("PartChecks",)

_NO_ID = "not-sent-yet"
_MAX_KNOWN = 2048
_LINKS = ("link", "link_error")
_PASSED_ON = "; first it gets what is passed on to it, with .si() nothing"


class PartChecks:
    """The checks of one send; a task with the same options is checked once. Used by one thread."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # By their ids, and held: a group has one errback for all members, and an id may be given again.
        self._links: dict[tuple[str, int], Mapping[str, Any]] = {}

    def check(self, part: Signature, before: Sequence[Any] | None = None, where: str = "") -> None:
        """Check all calls in a frozen part, and their callbacks and errbacks; members of a generator are not read.

        Args:
            part: the part.
            before: what it will get before its own arguments; None: those of what it begins with are checked when that is made.
            where: its place, for errors.

        Raises:
            ConfigurationError, EncodeError, InvalidArguments, UnknownQueue: as `apply_async` of the call.
        """
        for call, given, place in placed_in(part, before, UNKNOWN, where):
            self._check_call(call)
            if given is not None:
                self._check_arguments(call, given, place)
            elif call.task in OF_ITEMS:
                self.check_items(call, place)
            self.check_links(call.options)

    def check_links(self, options: Mapping[str, Any]) -> None:
        """Check the callbacks and errbacks among a call's options.

        Raises:
            ConfigurationError, EncodeError, InvalidArguments, UnknownQueue: as `check`.
        """
        for name in _LINKS:
            for link in signatures(options.get(name), name):
                if (name, id(link)) not in self._links:
                    self._links[name, id(link)] = link
                    self._check_link(name, freeze(signature(link), lambda: _NO_ID, lambda _: {}))

    def _check_link(self, name: str, link: Signature) -> None:
        if name == "link":
            self.check(link, (UNKNOWN,), "callback: ")
            return
        for errback in map(signature, separate((link,))):
            if takes_exception(self._calls.app, errback):
                self.check(errback)
                self._check_called(errback)
            else:
                self.check(errback, (UNKNOWN,), "errback: ")

    def _check_called(self, errback: Signature) -> None:
        # It is called as a function, which no type is checked of.
        whole = errback.clone((UNKNOWN,) * 3)
        try:
            self._calls.named(errback.task).parameters.check_number(whole.args, whole.kwargs)
        except InvalidArguments as exc:
            raise InvalidArguments(
                f"errback: {exc}; first it gets request, exception and traceback"
            ) from None

    def _check_arguments(self, call: Signature, before: Sequence[Any], where: str) -> None:
        try:
            self._check_fit(call, before)
            if call.task in OF_ITEMS:
                self._check_items(call)
        except InvalidArguments as exc:
            raise InvalidArguments(f"{where}{exc}{'' if call.immutable else _PASSED_ON}") from None

    def check_items(self, call: Signature, where: str = "") -> None:
        """Check the items of a call that runs a task for each of many, where it is sent first; see `OF_ITEMS`.

        Raises:
            InvalidArguments: the task cannot take as many arguments as an item is.
        """
        try:
            self._check_items(call)
        except InvalidArguments as exc:
            raise InvalidArguments(f"{where}{exc}") from None

    def _check_fit(self, call: Signature, before: Sequence[Any]) -> None:
        task, kwargs = self._calls.named(call.task), call.kwargs
        args = call.args if call.immutable else (*before, *call.args)
        number = (task, len(args), *kwargs)
        if number not in self._calls.known_right:
            task.parameters.check_number(args, kwargs)
            _remember(self._calls.known_right, number)
        task.parameters.check_types(args, kwargs)

    def _check_items(self, call: Signature) -> None:
        """Check that the task which a message has run for many items can take as many arguments as each of them is."""
        items: Any = call.kwargs.get("it")
        if item_task(call.kwargs) is None or not isinstance(items, list | tuple):
            return
        each = signature(call.kwargs["task"])
        for size in {1} if call.task == "celery.map" and items else _sizes(items):  # pyright: ignore[reportUnknownArgumentType] - any items
            whole = each.clone((UNKNOWN,) * size)
            self._calls.named(each.task).parameters.check_number(whole.args, whole.kwargs)

    def _check_call(self, call: Signature) -> None:
        known = _what_is_checked(call)
        try:
            check_task_id(_NO_ID if call.id is None else call.id)
            if known is not None and known in self._calls.known_right:
                return
            check_option_names(call.options)
            self._calls.check(self._calls.named(call.task), call.kwargs, call_options(call.options))
            if known is not None:
                _remember(self._calls.known_right, known)
        except UnknownQueue as exc:
            exc.add_note(f"named by a call of task {call.task!r} in a workflow")
            raise
        except ConfigurationError as exc:
            raise ConfigurationError(f"task {call.task!r}: {exc}") from exc

    def check_step(self, step: Step, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check a named step, and whether its task can take the arguments that it will get.

        Args:
            step: the step.
            args: what steps get that need no other.
            kwargs: likewise.

        Raises:
            InvalidArguments: it cannot; names the step.
            ConfigurationError, EncodeError, UnknownQueue: as `check`; names the step.
        """
        needed = ""
        try:
            self.check(step.call)
            if step.after:
                needed = f"; first it gets what {', '.join(step.after)} gave"
                self._check_fit(step.call, (UNKNOWN,) * len(step.after))
            else:
                call = step.call.clone(args, kwargs)
                self._calls.named(call.task).parameters.check_number(call.args, call.kwargs)
        except InvalidArguments as exc:
            raise InvalidArguments(f"step {step.name!r}: {exc}{needed:.500}") from None
        except UnknownQueue as exc:
            exc.add_note(f"of step {step.name!r}")
            raise
        except ConfigurationError as exc:
            raise ConfigurationError(f"step {step.name!r}: {exc}") from exc


def _sizes(items: Iterable[Any]) -> set[int]:
    return {len(item) for item in items if isinstance(item, list | tuple)}  # pyright: ignore[reportUnknownArgumentType] - any values


def _remember(known: set[Hashable], what: Hashable) -> None:
    if len(known) >= _MAX_KNOWN:
        known.clear()
    known.add(what)


def _what_is_checked(call: Signature) -> Hashable | None:
    """The same for calls that are right or wrong together; None: not known. Each has its own id, links are checked by themselves."""
    if call.task.startswith("celery."):
        return None  # what its arguments say counts, too
    options = {name: value for name, value in call.options.items() if name != "task_id"}
    kinds: list[type] = [type(value) for value in options.values()]  # True is no 1 here
    values = (None if name in _LINKS else value for name, value in options.items())
    key: Hashable = (call.task, *options, *kinds, *values)
    try:
        hash(key)
    except TypeError:
        return None
    return key
