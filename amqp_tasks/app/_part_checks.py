"""What is known to be wrong with the parts of a workflow before anything of it is sent.

Each part is checked as its own call is where that is made; the arguments of later ones are not known yet, so routes are not asked.
Workers do not come here: what only they find, or another client wrote, ends as `docs/explanation/workflows.md` says.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._signature_options import call_options, check_option_names
from amqp_tasks.canvas import calls_in, freeze, signature, signatures
from amqp_tasks.errors import ConfigurationError, InvalidArguments, UnknownQueue
from amqp_tasks.message import check_task_id

if TYPE_CHECKING:
    from amqp_tasks.app._calls import Calls
    from amqp_tasks.canvas import Signature, Step

__all__ = ("PartChecks",)

_NO_ID = "not-sent-yet"
_MAX_KNOWN = 2048
_LINKS = ("link", "link_error")


class PartChecks:
    """The checks of one send; a task with the same options is checked once. Used by one thread."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        # By their ids, and held: a group has one errback for all members, and an id may be given again.
        self._links: dict[int, Mapping[str, Any]] = {}

    def check(self, part: Signature) -> None:
        """Check the options of all calls in a frozen part, and of their callbacks and errbacks; members of a generator are not read.

        Raises:
            ConfigurationError, EncodeError, UnknownQueue: as `apply_async` of the call.
        """
        for call in calls_in(part):
            self._check_call(call)
            self.check_links(call.options)

    def check_links(self, options: Mapping[str, Any]) -> None:
        """Check the callbacks and errbacks among a call's options.

        Raises:
            ConfigurationError, EncodeError, UnknownQueue: as `check`.
        """
        for name in _LINKS:
            for link in signatures(options.get(name), name):
                if id(link) not in self._links:
                    self._links[id(link)] = link
                    self.check(freeze(signature(link), lambda: _NO_ID, lambda _: {}))

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
        """Check a named step, and whether its task can take as many arguments as it will get.

        Args:
            step: the step.
            args: what steps get that need no other.
            kwargs: likewise.

        Raises:
            InvalidArguments: it cannot; names the step.
            ConfigurationError, EncodeError, UnknownQueue: as `check`; names the step.
        """
        if step.after:
            args, kwargs = (None,) * len(step.after), {}
        call = step.call.clone(args, kwargs)
        try:
            self.check(step.call)
            self._calls.named(call.task).parameters.check_number(call.args, call.kwargs)
        except InvalidArguments as exc:
            needed = f"; first it gets what {', '.join(step.after)} gave" if step.after else ""
            raise InvalidArguments(f"step {step.name!r}: {exc}{needed:.500}") from None
        except UnknownQueue as exc:
            exc.add_note(f"of step {step.name!r}")
            raise
        except ConfigurationError as exc:
            raise ConfigurationError(f"step {step.name!r}: {exc}") from exc


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
