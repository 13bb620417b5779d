"""What Celery's app, task and result have besides, and what to do instead: for who moves over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

__all__ = ("APP", "RESULT", "TASK", "Lacking", "lacks")

Kind = TypeVar("Kind", bound=type)

_NO_SCHEDULER = "there is no scheduler yet; have cron or a systemd timer run `amqp-tasks call`"
_NO_SIGNALS = "there are no signals; what is to be done comes after App(...), and in tasks there are hooks"
_NO_PARTS = "workers and commands have no parts to add or exchange"
_CONNECTIONS = "the app shares its connections among all threads, and app.close() ends them; for other uses of RabbitMQ open your own"
_NOT_ABORTED = "use revoke(), and ask self.cancelled() in the task"
_RAISES = "use get(), which raises what the task raised"

APP: Mapping[str, str] = {
    "Beat": _NO_SCHEDULER,
    "GroupResult": "groups are kept nowhere; keep what delay() of the group returned",
    "ResultSet": "use ResultSet of amqp_tasks",
    "Task": "derive from Task of amqp_tasks, and say @app.task(base=...)",
    "WorkController": "use app.Worker",
    "add_defaults": "use app.conf.add_defaults",
    "add_periodic_task": _NO_SCHEDULER,
    "amqp": "queues, exchanges and bindings are in app.topology, routes in app.router",
    "connection": _CONNECTIONS,
    "connection_for_read": _CONNECTIONS,
    "connection_for_write": _CONNECTIONS,
    "connection_or_acquire": _CONNECTIONS,
    "current_task": "use current_task() of amqp_tasks, or bind=True",
    "current_worker_task": "use current_task() of amqp_tasks, or bind=True",
    "default_connection": _CONNECTIONS,
    "default_producer": _CONNECTIONS,
    "loader": "there are no loaders; settings and modules are named by the app",
    "log": "use logging.getLogger(__name__)",
    "now": "use datetime.now(app.timezone)",
    "on_after_configure": _NO_SIGNALS,
    "on_after_finalize": _NO_SIGNALS,
    "on_configure": _NO_SIGNALS,
    "pool": _CONNECTIONS,
    "producer_or_acquire": _CONNECTIONS,
    "producer_pool": _CONNECTIONS,
    "select_queues": "use app.Worker(queues=[...]), or -Q",
    "set_default": "use app.set_current()",
    "setup_security": "messages are signed by security_signing_keys",
    "steps": _NO_PARTS,
    "task_cls": "derive from Task of amqp_tasks, and say @app.task(base=...)",
    "user_options": _NO_PARTS,
    "worker_main": "use app.start(['worker', ...]), or app.Worker(...).start()",
}

RESULT: Mapping[str, str] = {
    "abort": _NOT_ABORTED,
    "backend": "it is that of the app, app.backend",
    "build_graph": "use graph()",
    "is_aborted": _NOT_ABORTED,
    "maybe_reraise": _RAISES,
    "maybe_throw": _RAISES,
    "throw": _RAISES,
}

TASK: Mapping[str, str] = {
    "Request": _NO_PARTS,
    "Strategy": _NO_PARTS,
    "backend": "it is that of the app, app.backend",
    "is_aborted": "use self.cancelled()",
    "reject_on_worker_lost": "a task whose process dies runs again, up to task_crash_limit times",
    "send_event": "use self.progress(...) or self.update_state(...)",
    "shadow_name": "give a call its shadow",
}


def lacks(celerys: Mapping[str, str]) -> Callable[[Kind], Kind]:
    """Have a class, and what derives from it, say of these names what to do instead.

    Each is an attribute that raises. A `__getattr__` would be asked, too, after each property that has raised AttributeError, be it ours
    or a derived class's, and Python has forgotten that error by then: only a second evaluation could tell it.
    """

    def decorate(kind: Kind) -> Kind:
        for name, remedy in celerys.items():
            setattr(kind, name, Lacking(kind, name, remedy))
        return kind

    return decorate


class Lacking:
    """An attribute that is not there; what is assigned or derived takes its place."""

    def __init__(self, kind: type, name: str, remedy: str) -> None:
        self._kind, self._name, self._remedy = kind, name, remedy

    def __get__(self, owner: Any, kind: type) -> Any:
        # A class that stands behind ours in the bases may have it.
        behind = kind.__mro__[kind.__mro__.index(self._kind) + 1 :]
        if any(self._name in vars(each) for each in behind):
            return getattr(super(self._kind, kind if owner is None else owner), self._name)  # pyright: ignore[reportUnknownArgumentType] - of any class
        text = f"{kind.__name__!r} object has no attribute {self._name!r}, which is Celery's: {self._remedy}"
        raise AttributeError(text, name=self._name, obj=owner)
