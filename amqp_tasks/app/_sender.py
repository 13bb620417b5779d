"""How signatures and workflows, which know no app, reach the one that they are sent with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from amqp_tasks.app._given import item_task, keywords, positional

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._workflow_result import WorkflowResult
    from amqp_tasks.canvas import Signature, Workflow

__all__ = ("AppSender",)


class AppSender:
    """The `amqp_tasks.canvas.Sender` of one app."""

    def __init__(self, app: App) -> None:
        self._app = app

    def send_signature(
        self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Any:
        """See `Sender.send_signature`."""
        return self._app.workflows.send(signature, positional(args), keywords(kwargs), options)

    def apply_signature(
        self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any], options: Mapping[str, Any]
    ) -> Any:
        """See `Sender.apply_signature`."""
        from amqp_tasks.app._eager_workflows import run_workflow
        from amqp_tasks.canvas import with_call_options

        whole, args, kwargs = with_call_options(signature, options), positional(args), keywords(kwargs)
        return run_workflow(self._app, whole, args, kwargs, throw=False, serialize=False)

    def send_workflow(
        self, workflow: Workflow, args: Sequence[Any], kwargs: Mapping[str, Any], timeout: float | None
    ) -> WorkflowResult:
        """See `Sender.send_workflow`."""
        app, args, kwargs = self._app, positional(args), keywords(kwargs)
        if app.settings.task.always_eager:
            from amqp_tasks.app._eager_steps import run_steps

            throw = app.settings.task.eager_propagates
            return run_steps(app, workflow, args, kwargs, throw=throw, serialize=True)
        return app.workflows.send_steps(workflow, args, kwargs, timeout)

    def apply_workflow(
        self, workflow: Workflow, args: Sequence[Any], kwargs: Mapping[str, Any]
    ) -> WorkflowResult:
        """See `Sender.apply_workflow`."""
        from amqp_tasks.app._eager_steps import run_steps

        return run_steps(
            self._app, workflow, positional(args), keywords(kwargs), throw=False, serialize=False
        )

    def call_signature(self, signature: Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """See `Sender.call_signature`.

        Raises:
            NotRegistered: its task is not known here.
        """
        from amqp_tasks.app._builtins import add_builtins, is_builtin

        whole = signature.clone(args, kwargs)
        if is_builtin(whole.task):
            add_builtins(self._app)
        return self._app.tasks[whole.task](*whole.args, **whole.kwargs)

    def new_id(self) -> str:
        """See `Sender.new_id`."""
        return self._app.calls.new_id()

    def has_secrets(self, call: Mapping[str, Any]) -> bool:
        """See `Sender.has_secrets`."""
        kwargs: Any = call.get("kwargs")
        names = (call.get("task"), item_task(kwargs) if isinstance(kwargs, Mapping) else None)  # pyright: ignore[reportUnknownArgumentType]
        tasks = (self._app.tasks.get(name) for name in names if isinstance(name, str))
        return any(task is not None and task.sensitive for task in tasks)
