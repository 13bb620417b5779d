"""How an errback is called: Celery's rule, in place or by a task that carries what it is called with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._exceptions import exception_of
from amqp_tasks.app._execution import awaited
from amqp_tasks.app._request import Request
from amqp_tasks.canvas import Signature, group, signature, with_options
from amqp_tasks.message import ResultRecord, State, exception_to_data

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._arguments import Parameters

__all__ = ("CALL_ERRBACK", "call_errback", "errback_call", "run_errback", "separate", "takes_exception")

CALL_ERRBACK = "amqp_tasks.call_errback"
"""Name of the task that calls an errback."""

_OF_WORKFLOW = {"joins", "mark", "callbacks", "errbacks", "chain", "chord"}
_FIELDS = tuple(field.name for field in fields(Request) if field.name not in _OF_WORKFLOW)


def separate(errbacks: Iterable[Any]) -> Iterator[Any]:
    """Errbacks as those that are called each for itself: a group as its members, as its results go to nobody.

    What cannot be read is left as it is: who sends it finds out what is wrong with it.
    """
    for errback in errbacks:
        members = _members(errback)
        if members is None:
            yield errback
        else:
            yield from separate(members)


def _members(errback: Any) -> list[Any] | None:
    try:
        part = signature(errback)
        if not isinstance(part, group) or part.is_lazy:  # a generator can be read once, by who sends it
            return None
        return [_alone(part, each) for each in part.kwargs["tasks"]]
    except Exception:  # noqa: BLE001 - it came in a message, and may be anything
        return None


def _alone(whole: group, member: Any) -> Any:
    """A member of a group, with the options and arguments that it has from the group."""
    try:
        call = signature(member)
    except Exception:  # noqa: BLE001 - as above, and the other members are called
        return member
    _, options = whole.own_options()
    return with_options(call, options).clone(whole.args)


def takes_exception(app: App, errback: Signature) -> bool:
    """Whether it is called with request, exception and traceback, as it takes more than one argument beside its own.

    Others, those that are not known here, and those that get the task itself are sent as tasks with the failed one's id: in place
    they would have no run of their own to ask about, or to retry.
    """
    task = app.tasks.get(errback.task)
    if task is None or errback.subtask_type is not None or task._is_bound or task._function is None:
        return False
    parameters: Parameters = task.parameters
    return parameters.number_free(errback.args, errback.kwargs) > 1


def run_errback(errback: Signature, request: Request, error: Exception, traceback: str | None) -> Any:
    """Call such an errback here, to its end; returns what it returns."""
    return awaited(errback(request, error, traceback))


def errback_call(errback: Signature, request: Request, error: Exception, traceback: str | None) -> Signature:
    """The call of the task that calls such an errback: with its options, so it goes where the errback would.

    Args:
        errback: see `takes_exception`.
        request: of the task that has failed.
        error: what it failed with.
        traceback: where that was raised.
    """
    kwargs = {
        "task": errback.changed(options={}),
        "request": {name: getattr(request, name) for name in _FIELDS},
        "error": exception_to_data(error),
        "traceback": traceback,
    }
    # Not the usual repr of the arguments: those of the failed task may be secret.
    shown = {"kwargsrepr": repr({"task": errback.task, "request": request.id}), "ignore_result": True}
    return Signature(
        CALL_ERRBACK, kwargs=kwargs, options={"shadow": errback.task, **errback.options, **shown}
    )


def call_errback(
    app: App, errback: Mapping[str, Any], told: Mapping[str, Any], error: Any, traceback: str | None
) -> Any:
    """Call an errback with what `errback_call` has written; returns what it returns.

    The exception is of its class where the caller of the failed task would get that class, else a `RemoteError`.

    Raises:
        NotRegistered: the errback is not known here.
    """
    known: dict[str, Any] = {name: told[name] for name in _FIELDS if name in told}
    request = Request(**known)
    request.args = tuple(request.args)
    record = ResultRecord(task_id=request.id or "", status=State.FAILURE, result=error, traceback=traceback)
    exc = exception_of(record, app=app, task=app.tasks.get(request.task))
    return run_errback(app.signature(signature(errback)), request, exc, traceback)
