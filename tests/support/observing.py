"""What the processes of a fault test tell of every task message: that it is sent, stored, refused, and how its run ended.

Each process that imports `support` while `LAW` names a file in its environment tells of what it publishes and runs, workers and
callers alike. It only looks on: what is published and run goes its way unchanged. `support.law` judges by it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from support.ledger import Ledger

if TYPE_CHECKING:
    from amqp_tasks.message import OutgoingMessage

__all__ = ("LAW", "observe", "tell", "tell_message")

LAW = "AMQP_TASKS_TEST_LAW"
"""The environment variable with the file to tell it to."""

TERMINAL = frozenset({"SUCCESS", "FAILURE", "REVOKED", "REJECTED", "IGNORED"})


def tell(event: str, key: str, note: str = "") -> None:
    """Add a line; nothing outside of the fault tests.

    Events: `sending`, then `accepted`, `refused` or `unknown`, of a task's id; `ended`, when its function has, is not to run again, and
    nobody has to hear of it; `answered`, when an end is stored where its caller looks, or he is gone; `revoked`; `put` and `taken` by a
    client of the test's.
    """
    path = os.environ.get(LAW)
    if path:
        Ledger(Path(path)).record(event, key, note)


def tell_message(event: str, headers: Any) -> None:
    """The same of a message that a client of the test's has put into a queue, or taken out of one; only of tasks."""
    task_id = _id_in(headers or {})
    if task_id:
        tell(event, task_id)


def observe() -> Callable[[], None]:
    """Look on at what this process, and what it forks, publishes and runs; returns what ends that."""
    from amqp_tasks.transport.rabbitmq import RabbitTransport
    from amqp_tasks.worker import _runner

    watched: Sequence[tuple[Any, str, Callable[..., Callable[..., Any]]]] = (
        (RabbitTransport, "publish", _watched_publish),
        (RabbitTransport, "publish_many", _watched_publish_many),
        (RabbitTransport, "publish_nowait", _watched_publish_nowait),
        (_runner, "_execute", _watched_execute),
    )
    originals = [(owner, name, getattr(owner, name)) for owner, name, _ in watched]
    for owner, name, watch in watched:
        setattr(owner, name, watch(getattr(owner, name)))

    def end() -> None:
        for owner, name, original in originals:
            setattr(owner, name, original)

    return end


def _watched_publish(publish: Callable[..., None]) -> Callable[..., None]:
    def watched(transport: Any, message: OutgoingMessage, **options: Any) -> None:
        _tell_sending(message)
        try:
            publish(transport, message, **options)
        except Exception as exc:
            _tell_outcome(message, exc)
            raise
        _tell_outcome(message, None)

    return watched


def _watched_publish_many(publish_many: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    def watched(transport: Any, messages: Iterable[OutgoingMessage], **options: Any) -> Sequence[Any]:
        taken: list[OutgoingMessage] = []

        def passing() -> Iterator[OutgoingMessage]:
            for message in messages:
                taken.append(message)
                _tell_sending(message)
                yield message

        outcomes = publish_many(transport, passing(), **options)
        for message, error in zip(taken, outcomes, strict=True):
            _tell_outcome(message, error)
        return outcomes

    return watched


def _watched_publish_nowait(publish_nowait: Callable[..., None]) -> Callable[..., None]:
    def watched(
        transport: Any, message: OutgoingMessage, on_outcome: Callable[[Any], None], **options: Any
    ) -> None:
        def pass_on(error: Any) -> None:
            _tell_outcome(message, error)
            on_outcome(error)

        _tell_sending(message)
        publish_nowait(transport, message, pass_on, **options)

    return watched


def _watched_execute(execute: Callable[..., Any]) -> Callable[..., Any]:
    def watched(task: Any, request: Any, *rest: Any) -> Any:
        outcome = execute(task, request, *rest)
        if outcome.state in TERMINAL and outcome.again is None and not _must_be_told(request, outcome):
            tell("ended", str(request.id), outcome.state)
        return outcome

    return watched


def _must_be_told(request: Any, outcome: Any) -> bool:
    """Whether a run is not the end: its outcome must come to somebody, or to the dead letters."""
    if outcome.state in {"FAILURE", "REJECTED"}:
        return True
    return outcome.state == "SUCCESS" and bool(request.reply_to) and not request.ignore_result


def _id_in(headers: Mapping[str, Any]) -> str:
    """The id of a task's message; the watch of a join looks like one, and is none."""
    name = headers.get("task")
    return str(headers.get("id") or "") if isinstance(name, str) and name != "amqp_tasks.watch_join" else ""


def _tell_sending(message: OutgoingMessage) -> None:
    tell_message("sending", message.properties.all_headers())


def _tell_outcome(message: OutgoingMessage, error: Exception | None) -> None:
    from amqp_tasks.errors import SendUnknown, UnroutableError

    task_id = _id_in(message.properties.all_headers())
    if task_id:
        event = "accepted" if error is None else "unknown" if isinstance(error, SendUnknown) else "refused"
        tell(event, task_id, "" if error is None else f"{type(error).__name__}: {error}")
    elif error is None or isinstance(error, UnroutableError):
        _tell_of_others(message, has_reader=error is None)


def _tell_of_others(message: OutgoingMessage, *, has_reader: bool) -> None:
    """A result, or an entry of the journal."""
    try:
        said = json.loads(message.body)
    except ValueError:
        return
    if not isinstance(said, dict):
        return
    if said.get("kind") == "revoke":
        for task_id in said["facts"]["ids"]:
            tell("revoked", task_id)
    elif not has_reader and said.get("status") == "FAILURE":
        return  # then it must lie among the dead letters; a caller who is gone counts as told of all else
    elif said.get("status") in TERMINAL and message.properties.correlation_id:
        tell("answered", message.properties.correlation_id, str(said["status"]))


if os.environ.get(LAW):
    observe()
