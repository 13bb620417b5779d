"""What `amqp-tasks dlq purge` asks."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

from amqp_tasks import App
from amqp_tasks.app import DeadLetterFilter
from amqp_tasks.cli.commands import dlq
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport import TopologyMode


@pytest.fixture
def app() -> Iterator[App]:
    with App("asked", broker="memory://asked/", task_queues=["mail"]) as made:
        made.transport.ensure_topology(made.topology, mode=TopologyMode.DECLARE)
        for number in range(3):
            headers = {"id": f"{number}", "task": "t" if number else "other"}
            made.transport.publish(
                OutgoingMessage(
                    exchange="", routing_key="mail.dead", body=b"", properties=Properties(headers=headers)
                )
            )
        yield made
        made.transport.purge_queue("mail.dead")


@pytest.mark.parametrize(
    ("held", "chosen", "limit", "asked"),
    [
        (10, DeadLetterFilter(), None, "Remove 3 dead letters for good?"),
        (10, DeadLetterFilter(tasks=["t"]), None, "Remove 2 dead letters for good?"),
        (10, DeadLetterFilter(tasks=["t"]), 1, "Remove 1 dead letter for good?"),
        (2, DeadLetterFilter(), None, "Remove 3 dead letters for good?"),
        (2, DeadLetterFilter(tasks=["t"]), None, "Remove 2 or more dead letters for good?"),
        (2, DeadLetterFilter(tasks=["t"]), 1, "Remove 1 dead letter for good?"),
    ],
)
def test_the_number_is_said_to_be_a_part_where_a_look_sees_only_a_part(
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    held: int,
    chosen: DeadLetterFilter,
    limit: int | None,
    asked: str,
) -> None:
    said: list[str] = []
    monkeypatch.setattr(dlq, "MAX_HELD", held)
    monkeypatch.setattr(click, "confirm", lambda text, err: said.append(text))

    dlq._confirmed(app, ("mail",), chosen, limit)

    assert said == [asked]
