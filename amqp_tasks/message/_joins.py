"""What travels between the tasks of a chord's header and its join queue.

A task that is waited for says so in a header, which can be read where its body cannot. The queue holds one definition (what
is to be run) and one outcome from each task, perhaps twice.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from amqp_tasks.errors import MalformedMessage, TaskRevokedError
from amqp_tasks.message._amqp import HeaderValue, OutgoingMessage, Properties, signed_for_queue
from amqp_tasks.message._exceptions import exception_from_data, exception_to_data
from amqp_tasks.message._headers import JOINS_HEADER
from amqp_tasks.message._results import State
from amqp_tasks.message._signing import KeyRing
from amqp_tasks.serialization import DEFAULT_LIMITS, JSON_TYPE, Limits, dumps, loads
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = (
    "JOINS_HEADER",
    "JOIN_PREFIX",
    "JoinOutcome",
    "JoinTold",
    "Needed",
    "definition_message",
    "is_definition",
    "is_for_join",
    "outcome_message",
    "read_join",
    "read_joins",
    "read_needs",
    "told_message",
    "told_outcome",
)

JOIN_PREFIX = "amqp_tasks.join."
"""Names of join queues begin so. A header that names another queue is passed over: its messages are nobody's outcomes."""

_DEFINITION, _OUTCOME, _TOLD = "join-definition", "join-outcome", "join-told"


@dataclass(frozen=True, slots=True, kw_only=True)
class Needed:
    """A named step that a join waits for.

    Attributes:
        name: its name.
        behind: the join in which it waits, or the first step of those that it travels with; empty: in none.
        members: ids of these steps and its own, each with the place where its result is waited for; empty for nobody.
    """

    name: str
    behind: str
    members: Sequence[tuple[str, str]]

    @property
    def data(self) -> list[Any]:
        """As a definition holds it."""
        return [self.name, self.behind, [list(member) for member in self.members]]


@dataclass(frozen=True, slots=True)
class JoinTold:
    """Which failures what waits for a join of named steps was told of.

    Attributes:
        failures: as `JoinOutcome.kept_as`.
    """

    failures: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinOutcome:
    """How one task of a header ended.

    Attributes:
        index: its place.
        task_id: its id.
        value: what it returned.
        error: the exception as data, when it failed.
        added: how many tasks it added to the header.
        kept_as: where it failed and lies in the dead letters, so that it may still succeed: what tells this failure from
            later ones of the same task; empty otherwise.
        is_lost: nothing came of it, which is why it counts as failed.
        run: see `StepMark.run`; empty where it is not known.
    """

    index: int
    task_id: str
    value: Any = None
    error: Mapping[str, Any] | None = None
    added: int = 0
    kept_as: str = ""
    is_lost: bool = False
    run: str = ""


def definition_message(queue: str, definition: Mapping[str, Any]) -> OutgoingMessage:
    """What a join is for.

    Raises:
        EncodeError: an argument in it cannot be written.
    """
    return _message(queue, _DEFINITION, definition)


def outcome_message(
    queue: str,
    index: int,
    task_id: str,
    *,
    value: Any = None,
    error: Exception | None = None,
    added: int = 0,
    kept_as: str = "",
    is_lost: bool = False,
    run: str = "",
) -> OutgoingMessage:
    """How a task ended, for a join that waits for it.

    Raises:
        EncodeError: the value cannot be written.
    """
    told = {
        "index": index, "task_id": task_id, "value": value, "added": added,
        "error": None if error is None else exception_to_data(error), "kept_as": kept_as,
        "is_lost": is_lost, "run": run,
    }  # fmt: skip
    return _message(queue, _OUTCOME, told)


def told_outcome(task_id: str, value: Any, error: Mapping[str, Any] | None) -> dict[str, Any]:
    """How a member ended, as a task is told of it: see `group.on_complete`.

    Args:
        task_id: its id.
        value: what it returned.
        error: what `exception_to_data` gives of the exception, when it failed.
    """
    if error is None:
        return {"task_id": task_id, "state": State.SUCCESS.value, "value": value, "error": None}
    is_revoked = isinstance(exception_from_data(error), TaskRevokedError)
    said = {name: error.get(name) for name in ("exc_type", "exc_message", "exc_module")}
    state = State.REVOKED if is_revoked else State.FAILURE
    return {"task_id": task_id, "state": state.value, "value": None, "error": said}


def told_message(queue: str, failures: Iterable[str]) -> OutgoingMessage:
    """That a join of named steps has told what waits for it of these failures: they are not to be told again."""
    return _message(queue, _TOLD, {"failures": sorted(failures)})


def _message(queue: str, kind: str, content: Mapping[str, Any]) -> OutgoingMessage:
    content_type, encoding, body = dumps("json", content, root="outcome in a workflow")
    properties = Properties(
        content_type=content_type, content_encoding=encoding, delivery_mode=2, type=kind, headers={}
    )
    return OutgoingMessage(
        exchange="", routing_key=queue, body=body, properties=properties, signed_as=signed_for_queue(queue)
    )


def is_for_join(message: OutgoingMessage) -> bool:
    """Whether it is a definition or an outcome: where its queue is gone, the join has ended, and it is wanted no more."""
    return not message.exchange and message.routing_key.startswith(JOIN_PREFIX)


def read_join(
    properties: Properties,
    body: bytes,
    *,
    limits: Limits = DEFAULT_LIMITS,
    queue: str = "",
    keys: KeyRing | None = None,
) -> JoinOutcome | JoinTold | dict[str, Any]:
    """An outcome, what was told, or the definition as a mapping.

    Args:
        properties: as received.
        body: as received.
        limits: see `Limits`.
        queue: the join that it was found in.
        keys: by which its signature is checked; None: it is not.

    Raises:
        MalformedMessage: none of these, or not signed for this join.
    """
    if keys is not None:
        keys.check(properties, body, signed_for_queue(queue))
    content = loads(
        properties.content_type, properties.content_encoding, body, accept=(JSON_TYPE,), limits=limits
    )
    if isinstance(content, dict):
        told: dict[str, Any] = content  # pyright: ignore[reportUnknownVariableType]
        if properties.type == _DEFINITION and is_definition(told):
            return told
        if properties.type == _TOLD and isinstance(failures := told.get("failures"), list):
            return JoinTold(frozenset(map(str, _items(failures))))
        if properties.type == _OUTCOME and isinstance(told.get("index"), int):
            error = told.get("error")
            added = told.get("added")
            return JoinOutcome(
                index=told["index"],
                task_id=str(told.get("task_id")),
                value=told.get("value"),
                error=error if isinstance(error, dict) else None,  # pyright: ignore[reportUnknownArgumentType]
                added=added if isinstance(added, int) else 0,
                kept_as=str(told.get("kept_as") or "") if isinstance(error, dict) else "",
                is_lost=told.get("is_lost") is True,
                run=str(told.get("run") or ""),
            )
    raise MalformedMessage(DeadLetterReason.BAD_BODY, "no message of a workflow's join")


def is_definition(told: Mapping[str, Any]) -> bool:
    """Whether content is that of a definition: of a chord, which has a body, or of named steps."""
    if not isinstance(told.get("size"), int):
        return False
    steps: Any = told.get("steps")
    if isinstance(steps, list):
        return all(isinstance(step, dict) and _is_part(step) for step in _items(steps))  # pyright: ignore[reportUnknownArgumentType]
    return _is_part(told)


def _is_part(told: Mapping[str, Any]) -> bool:
    joins: Any = told.get("joins") or []
    return (
        isinstance(told.get("body"), dict)
        and isinstance(told.get("chain") or [], list)
        and isinstance(joins, list)
        and all(_join(item) is not None for item in _items(joins))
    )


def read_joins(headers: Mapping[str, HeaderValue]) -> list[tuple[str, int, int]]:
    """The joins that wait for a task: queue, index and size of each; what is not well formed is passed over."""
    found: Any = headers.get(JOINS_HEADER)
    return [] if not isinstance(found, list) else [join for item in _items(found) if (join := _join(item))]


def read_needs(definition: Mapping[str, Any]) -> list[Needed]:
    """The named steps that a join waits for, by their index in it. One that is not well formed has no name, and nobody waits."""
    found: Any = definition.get("needs")
    return [_needed(item) for item in _items(found)] if isinstance(found, list) else []


def _needed(item: Any) -> Needed:
    match item:
        case [str(name), str(behind), [*members]]:
            return Needed(name=name, behind=behind, members=list(_pairs(members)))
        case _:
            return Needed(name="?", behind="", members=())


def _pairs(members: Iterable[Any]) -> Iterable[tuple[str, str]]:
    for member in members:
        match member:
            case [str(task_id), str(place)]:
                yield task_id, place
            case _:
                pass


def _items(found: Any) -> Sequence[Any]:
    return found  # type: ignore[no-any-return]


def _join(item: Any) -> tuple[str, int, int] | None:
    match item:
        case [str(queue), int(index), int(size)] if queue.startswith(JOIN_PREFIX):
            return queue, index, size
        case _:
            return None
