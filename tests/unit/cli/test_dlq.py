"""What `amqp-tasks dlq purge` asks, and how many letters `dlq show` shows."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import click
import pytest

from amqp_tasks import App
from amqp_tasks.app import DeadLetterFilter
from amqp_tasks.cli import ExitCode, main
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


@pytest.fixture
def many() -> Iterator[tuple[App, list[str]]]:
    """An app with more letters than are shown without being asked for, and their ids."""
    app = App("many", broker=f"memory://{uuid.uuid4().hex}/", task_queues=["mail"])
    app.transport.ensure_topology(app.topology, mode=TopologyMode.DECLARE)
    ids = [f"id-{number}" for number in range(15)]
    for each in ids:
        app.transport.publish(
            OutgoingMessage(
                exchange="", routing_key="mail.dead", body=b"", properties=Properties(headers={"id": each})
            )
        )
    yield app, ids
    app.close()


@pytest.mark.parametrize(
    ("options", "expected"), [([], 15), (["--limit", "12"], 12)], ids=["by default", "with a limit"]
)
def test_all_letters_whose_ids_are_given_are_shown(
    many: tuple[App, list[str]], options: list[str], expected: int, capsys: pytest.CaptureFixture[str]
) -> None:
    app, ids = many

    code = main(["dlq", "show", *ids, *options, "--json"], app=app)

    assert code == ExitCode.OK
    assert [letter["id"] for letter in json.loads(capsys.readouterr().out)] == ids[:expected]


def test_an_id_that_is_not_there_is_named_beside_many_that_are(
    many: tuple[App, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    app, ids = many

    code = main(["dlq", "show", *ids[:10], "nowhere"], app=app)

    assert code == ExitCode.FAILED
    assert "not found: nowhere" in capsys.readouterr().err


def test_without_ids_the_first_ten_are_shown(
    many: tuple[App, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    app, _ids = many

    assert main(["dlq", "show", "--json"], app=app) == ExitCode.OK
    assert len(json.loads(capsys.readouterr().out)) == 10
