"""What the class of a task may have to be told of its runs; Celery's hooks, with Celery's signatures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqp_tasks.app._hooks import ExceptionInfo

__all__ = ("HOOKS", "TaskHooks")

HOOKS = ("before_start", "on_success", "on_failure", "on_retry", "after_return", "on_dead")


class TaskHooks:
    """Called in the worker. An exception in one is logged and changes nothing, but for `before_start`."""

    def before_start(self, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Override: called before each run. What it raises is the outcome: the function is not called."""

    def on_success(self, retval: Any, task_id: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Override: called in the worker when the function has returned, before its result is sent."""

    def on_failure(
        self,
        exc: Exception,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Override: called in the worker when the task has failed for good, before that is sent."""

    def on_retry(
        self,
        exc: Exception | None,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Override: called in the worker when the task is to run again; `exc` is the reason given, if any."""

    def after_return(
        self,
        status: str,
        retval: Any,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo | None,
    ) -> None:
        """Override: called last, with SUCCESS, FAILURE or RETRY; `retval` is the value or the exception."""

    def on_dead(
        self,
        exc: Exception,
        task_id: str,
        args: Sequence[Any],
        kwargs: Mapping[str, Any],
        einfo: ExceptionInfo,
    ) -> None:
        """Override, or give a function as the option `on_dead`: called in the worker when the task has ended without success and
        is not run again, however it ended: also where none of the other hooks can be called (crashes, hard time
        limit, `Reject`, what cannot be read). `exc` is what a caller gets; arguments that cannot be read are empty.
        """
