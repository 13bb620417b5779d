"""A client of stock Celery, driven over a pipe; `support.stock_client` is the other end."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from typing import Any

__all__ = ("Answer",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What `delay(...).get(...)` gave: a value, or the exception with its classes by name; `states` on the way, and `children`."""

    task_id: str
    state: str = ""
    value: Any = None
    error: str = ""
    classes: tuple[str, ...] = ()
    args: tuple[Any, ...] = ()
    traceback: str = ""
    states: tuple[str, ...] = ()
    children: tuple[str, ...] = ()
    loaded: frozenset[str] = field(default=frozenset())


def _serve(pipe: Connection) -> None:
    from stock.app import app

    sent: dict[str, Any] = {}
    while True:
        try:
            action, name, args, kwargs, options, timeout = pipe.recv()
        except EOFError:
            return
        if action == "get":
            result = sent[name]
        elif action == "workflow":
            try:
                result = eval(name, _words(app))
            except Exception as exc:
                pipe.send(_failure("", "", exc))
                continue
            sent[result.id] = result
        else:
            # Without a task of its own it checks no arguments.
            task = None if options.pop("by_name", False) else app.tasks.get(name)
            if task is not None:
                result = task.apply_async(args, kwargs, **options)
            else:
                result = app.send_task(name, args, kwargs, **options)
            sent[result.id] = result
        pipe.send(Answer(task_id=result.id) if action == "send" else _outcome(result, timeout))


def _words(app: Any) -> dict[str, Any]:
    """What a workflow is written with: stock Celery's own."""
    import celery

    words = {name: getattr(celery, name) for name in ("chain", "chord", "chunks", "group")}
    return {**words, "app": app, "s": app.signature}


def _outcome(result: Any, timeout: float) -> Answer:
    loaded = frozenset(name.partition(".")[0] for name in sys.modules)
    states: list[str] = []
    try:
        value = result.get(timeout=timeout, on_message=lambda meta: states.append(meta["status"]))
    except Exception as exc:
        return replace(
            _failure(result.id, _state(result), exc),
            traceback=str(getattr(result, "traceback", None) or ""),
            states=tuple(states),
            loaded=loaded,
        )
    children = tuple(child.id for child in getattr(result, "children", None) or ())
    return Answer(
        task_id=result.id,
        state=_state(result),
        value=value,
        states=tuple(states),
        children=children,
        loaded=loaded,
    )


def _failure(task_id: str, state: str, exc: Exception) -> Answer:
    classes = tuple(f"{kind.__module__}.{kind.__qualname__}" for kind in type(exc).__mro__)
    return Answer(task_id=task_id, state=state, error=str(exc), classes=classes, args=tuple(exc.args))


def _state(result: Any) -> str:
    return str(getattr(result, "state", ""))  # a group has none


if __name__ == "__main__":
    # As the tests import it, so that answers unpickle there.
    from stock.client import _serve as serve

    serve(Connection(int(sys.argv[1])))
