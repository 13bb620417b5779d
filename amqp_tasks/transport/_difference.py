"""How a difference between the broker and our topology is told: what is there, what we declare, and what mends it."""

from __future__ import annotations

from dataclasses import fields
from shlex import quote

from amqp_routing import Exchange, Queue
from amqp_tasks.message import dead_letter_queue_name

__all__ = ("difference",)

_FIELDS = {
    "queue": {field.name for field in fields(Queue)},
    "exchange": {field.name for field in fields(Exchange)},
}
_IN_MILLISECONDS = frozenset(
    {"message_ttl", "expires", "consumer_timeout", "delayed_retry_min", "delayed_retry_max"}
)
_OF_DEAD_LETTERS = frozenset({"x-dead-letter-exchange", "x-dead-letter-routing-key"})


def difference(kind: str, name: str, argument: str, *, wanted: object, found: object) -> str:
    """One line about one argument of a queue or exchange (`kind`); None stands for an argument that is not given."""
    migrate = f"migrate it (amqp-tasks topology migrate {quote(name)}), " if kind == "queue" else ""
    return (
        f"{kind} {name!r} exists with {_said(argument, found)}, declared as {_said(argument, wanted)}: {migrate}delete it, or set "
        + (_queue_remedy(name, argument, found) if kind == "queue" else _exchange_remedy(argument, found))
    )


def _said(argument: str, value: object) -> str:
    if value is None:
        return f"no {argument}"
    return f"{argument}={str(value).lower() if isinstance(value, bool) else value}"


def _queue_remedy(name: str, argument: str, found: object) -> str:
    in_task_queues = _in_task_queues("queue", argument, found)
    if name.endswith(dead_letter_queue_name("")) or (argument in _OF_DEAD_LETTERS and found is None):
        return "task_dead_letter_queues=False"
    if argument == "x-queue-type":
        return (
            f"{in_task_queues} (task_default_queue_type={found!r} for the default queue,"
            f" task_create_missing_queue_type={found!r} for those that are not in task_queues)"
        )
    if argument == "x-delivery-limit":
        # Every quorum queue of ours has one.
        return "topology='none' to use it as it is" if found is None else f"task_delivery_limit={found}"
    return f"task_queue_max_priority={found}" if argument == "x-max-priority" else in_task_queues


def _exchange_remedy(argument: str, found: object) -> str:
    in_task_queues = _in_task_queues("exchange", argument, found)
    if argument == "type":
        return f"{in_task_queues} (task_default_exchange_type={found!r} for the default exchange)"
    return in_task_queues


def _in_task_queues(kind: str, argument: str, found: object) -> str:
    field = argument.removeprefix("x-").removeprefix("queue-").replace("-", "_")
    if isinstance(found, str) and found.isdigit():
        found = int(found)  # the broker's text does not always tell the type
    if field not in _FIELDS[kind]:
        given = f"{argument!r}: {found!r}" if found is not None else ""
        return f"arguments={{{given}}} of the {kind} in task_queues"
    if field in _IN_MILLISECONDS and isinstance(found, int):
        found = found / 1000
    return f"{field}={found!r} of the {kind} in task_queues"
