"""The app that shared tasks bind to, and the tasks that were declared without an app.

There is no global app behind anybody's back: only `shared_task`, results that were unpickled and `current_app()` ask
here. The answer is the app of the running task, else the one that `app.set_current()` named, else the first app of
the process that is still alive.
"""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from amqp_tasks._moment import others
from amqp_tasks.app._request import current_frame
from amqp_tasks.errors import ConfigurationError

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._task import Task

__all__ = ("current_app", "current_task", "living_apps", "note_created", "set_current")


class _Known:
    """Written by `App.__init__` and `set_current`, in the importing thread as a rule; read anywhere."""

    current: App | None = None
    created: list[weakref.ref[App]] = []  # noqa: RUF012 - one list for the process is what this class is


def note_created(app: App) -> None:
    """Remember an app, weakly."""
    _Known.created = [known for known in _Known.created if known() is not None]
    _Known.created.append(weakref.ref(app))


def living_apps() -> list[App]:
    """Every app of this process that is alive, in the order of creation."""
    return [app for known in _Known.created if (app := known()) is not None]


def set_current(app: App | None) -> None:
    """Make `app` the process's current one; None goes back to the first created."""
    _Known.current = app


def current_app() -> App:
    """The app of the running task, else the current one, else the first that was created.

    Raises:
        ConfigurationError: there is none.
    """
    frame = current_frame()
    if frame is not None:
        return frame.task.app
    app = _Known.current or next(iter(living_apps()), None)
    if app is None:
        raise ConfigurationError(
            "no app: create one with App('name') and import its module first, or call app.set_current()"
        )
    return app


# What no task of an app is in, an empty group or what was unpickled for one, is sent by the app of the moment.
others[:] = [lambda: current_app().sender]


def current_task() -> Task[..., Any] | None:
    """The task that runs in this context, or None."""
    frame = current_frame()
    return frame.task if frame is not None else None
