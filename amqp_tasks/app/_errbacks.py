"""How an errback is called: Celery's rule."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.canvas import Signature

__all__ = ("takes_exception",)


def takes_exception(app: App, errback: Signature) -> bool:
    """Whether it is called in place with request, exception and traceback, as its function takes more than one argument.

    Others, and those that are not known here, are sent as tasks with the failed one's id.
    """
    task = app.tasks.get(errback.task)
    if task is None or errback.subtask_type is not None:
        return False
    parameters = task.parameters
    return len(parameters.positional) - len(errback.args) > 1 or parameters.takes_any_number
