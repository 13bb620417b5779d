"""amqp-tasks: a distributed task system whose engine is RabbitMQ.

Names are imported when they are first used, so that a producer pays only for what it needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqp_tasks.app import (
        App,
        AsyncResult,
        Backoff,
        GroupResult,
        Request,
        ResultSet,
        RetryPlan,
        Steps,
        Task,
        WorkflowResult,
        allow_join_result,
        current_app,
        current_request,
        current_task,
        find_app,
        result_from_tuple,
        shared_task,
    )
    from amqp_tasks.canvas import Signature, Workflow, chain, chord, chunks, group, signature, xmap, xstarmap

__all__ = (
    "App",
    "AsyncResult",
    "Backoff",
    "GroupResult",
    "Request",
    "ResultSet",
    "RetryPlan",
    "Signature",
    "Steps",
    "Task",
    "Workflow",
    "WorkflowResult",
    "allow_join_result",
    "chain",
    "chord",
    "chunks",
    "current_app",
    "current_request",
    "current_task",
    "find_app",
    "group",
    "result_from_tuple",
    "shared_task",
    "signature",
    "xmap",
    "xstarmap",
)

_CANVAS = frozenset(
    {"Signature", "Workflow", "chain", "chord", "chunks", "group", "signature", "xmap", "xstarmap"}
)
_OLD_NAMES = {
    "Celery": "use App",
    "exceptions": "the errors are in amqp_tasks.errors",
    "maybe_signature": "use signature, which leaves a signature as it is",
    "subtask": "use signature",
    "task": "use @app.task, or shared_task where the app is not known",
}


def __getattr__(name: str) -> Any:
    if name in _CANVAS:
        import amqp_tasks.app  # says who sends what no task of an app is in
        import amqp_tasks.canvas

        return getattr(amqp_tasks.canvas, name)
    if name in __all__:
        import amqp_tasks.app

        return getattr(amqp_tasks.app, name)
    hint = f": {_OLD_NAMES[name]}" if name in _OLD_NAMES else ""
    # `from amqp_tasks import task` shows only an ImportError's own text, so the remedy must be in one.
    error = ImportError if name in _OLD_NAMES else AttributeError
    raise error(f"module 'amqp_tasks' has no attribute {name!r}{hint}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
