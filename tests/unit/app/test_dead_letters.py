"""`app.dead_letters`, on the broker inside the process."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, Self

import pytest

from amqp_tasks import App
from amqp_tasks.app import DeadLetterFilter
from amqp_tasks.app._look import Look
from amqp_tasks.errors import BrokerUnreachable, UnknownQueue, UnroutableError
from amqp_tasks.message import Properties, dead_letter
from amqp_tasks.transport import ConsumerEvent, ConsumerState, QueueStatus, TopologyMode
from support import eventually


@pytest.fixture
def app() -> Iterator[App]:
    with App("dead", broker=f"memory://{uuid.uuid4().hex}/", task_queues=["mail", "files"]) as made:
        made.transport.ensure_topology(made.topology, mode=TopologyMode.DECLARE)
        yield made


def bury(app: App, *ids: str, queue: str = "mail", ago: float = 0.0, **facts: Any) -> None:
    for each in ids:
        given: dict[str, Any] = {"reason": "failed", "detail": "", "error_type": "ValueError", **facts}
        headers = {"id": each, "task": given.pop("task", "proj.add")}
        app.transport.publish(
            dead_letter(
                queue_name=queue,
                exchange="",
                routing_key=queue,
                properties=Properties(headers=headers),
                body=each.encode(),
                now=datetime.now(UTC) - timedelta(seconds=ago),
                **given,
            )
        )


def ids_in(app: App, *queues: str, **conditions: Any) -> list[str]:
    return [letter.id for letter in app.dead_letters.find(queues or None, DeadLetterFilter(**conditions))]


def depth(app: App, queue: str) -> int:
    status = app.transport.queue_status(queue)
    assert status is not None
    return status.messages


def test_they_are_found_in_order_and_stay(app: App) -> None:
    bury(app, "a", "b", "c")
    bury(app, "d", queue="files")

    for _ in range(60):
        assert ids_in(app) == ["a", "b", "c", "d"]
        assert ids_in(app, "mail") == ids_in(app, "mail.dead") == ["a", "b", "c"]
    assert app.dead_letters.counts() == {"mail": 3, "files": 1, "default": 0}


def test_bodies_come_when_asked_for(app: App) -> None:
    bury(app, "a")

    (without,) = app.dead_letters.find()
    (with_body,) = app.dead_letters.find(bodies=True)

    assert (without.body, without.size) == (None, 1)
    assert with_body.body == b"a"


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ({"ids": ("a", "b", "no")}, ["a", "b"]),
        ({"tasks": ("proj.*",)}, ["a", "b"]),
        ({"tasks": ("PROJ.*",)}, []),
        ({"reasons": ("bad-*", "failed")}, ["a", "b", "c"]),
        ({"errors": ("Key*",)}, ["b"]),
        ({"older": timedelta(hours=1)}, ["b"]),
        ({"newer": timedelta(hours=1)}, ["a", "c"]),
        ({"tasks": ("proj.add",), "newer": timedelta(hours=1)}, ["a"]),
    ],
)
def test_conditions_choose(app: App, conditions: dict[str, Any], expected: list[str]) -> None:
    bury(app, "a")
    bury(app, "b", error_type="KeyError", ago=7200)
    bury(app, "c", reason="bad-json", task="other")

    assert ids_in(app, **conditions) == expected


def test_a_limit_counts_over_all_queues(app: App) -> None:
    bury(app, "a", "b")
    bury(app, "c", "d", queue="files")

    assert [letter.id for letter in app.dead_letters.find(limit=3)] == ["a", "b", "c"]
    assert [letter.id for letter in app.dead_letters.find(limit=2)] == ["a", "b"]
    assert len(app.dead_letters.find()) == 4


def test_requeue_puts_them_back_and_leaves_the_others_in_order(app: App) -> None:
    bury(app, *"abcde")

    done = app.dead_letters.requeue(where=DeadLetterFilter(ids=("b", "d")))

    assert (done.count, done.failures) == (2, ())
    assert ids_in(app) == ["a", "c", "e"]
    assert depth(app, "mail") == 2


def test_requeue_tells_which_ids_it_did_not_find(app: App) -> None:
    bury(app, *"abc")

    assert app.dead_letters.requeue(where=DeadLetterFilter(ids=("z", "a", "y"))).missing == ("z", "y")
    assert app.dead_letters.requeue(where=DeadLetterFilter(ids=("b", "z")), limit=1).missing == ()
    assert app.dead_letters.requeue().missing == ()


def test_requeue_with_a_limit_takes_the_oldest(app: App) -> None:
    bury(app, *"abc")

    assert app.dead_letters.requeue(limit=2).count == 2
    assert ids_in(app) == ["c"]


def test_what_cannot_be_requeued_stays_and_is_told(app: App) -> None:
    bury(app, *"abc")
    app.transport.delete_queue("mail")

    # Another process, which has not declared the queue and so does not declare it again.
    with App("other", broker=app.conf.broker_url, task_queues=["files"]) as other:
        done = other.dead_letters.requeue(["mail"])

    assert done.count == 0
    assert [letter.id for letter, _ in done.failures] == ["a", "b", "c"]
    assert all(isinstance(error, UnroutableError) for _, error in done.failures)
    assert ids_in(app, "mail") == ["a", "b", "c"]


def test_an_end_between_publish_and_removal_leaves_a_duplicate_never_a_loss(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    bury(app, "a", "b")

    def die(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Look, "remove", die)
    with pytest.raises(KeyboardInterrupt):
        app.dead_letters.requeue()

    assert ids_in(app) == ["a", "b"]
    assert depth(app, "mail") == 2


def test_purge_removes_what_is_meant(app: App) -> None:
    bury(app, *"abc")
    bury(app, "d", queue="files")

    assert app.dead_letters.purge(where=DeadLetterFilter(ids=("b",))) == 1
    assert ids_in(app) == ["a", "c", "d"]
    assert app.dead_letters.purge(limit=1) == 1
    assert ids_in(app) == ["c", "d"]
    assert app.dead_letters.purge(["mail"]) == 1
    assert ids_in(app) == ["d"]


def test_what_came_before_an_end_that_is_told_twice_is_found(app: App) -> None:
    """By the last of what was counted, and by the end of consuming that was asked for when it was long on its way."""
    bury(app, "a")
    with Look(app.transport, "mail", lambda _: True, keeps_bodies=False, limit=None) as look:
        eventually(lambda: look._seen == 1 and look._is_consuming)
        look._is_stopping = True
        look._on_event(ConsumerEvent(state=ConsumerState.CONSUMING, epoch=1))

        found = [each.letter.id for batch in look for each in batch]

    assert found == ["a"]


def test_one_text_is_one_condition_and_not_its_characters(app: App) -> None:
    bury(app, "a", "b", "ab")

    assert app.dead_letters.purge(where=DeadLetterFilter(ids="ab")) == 1
    assert ids_in(app) == ["a", "b"]
    assert app.dead_letters.purge(where=DeadLetterFilter(tasks="no*")) == 0
    assert ids_in(app) == ["a", "b"]


@pytest.mark.parametrize("field", ["ids", "tasks", "reasons", "errors"])
def test_a_condition_that_came_out_empty_means_none_and_not_all(app: App, field: str) -> None:
    bury(app, "a", "b")
    nothing = DeadLetterFilter(**{field: []})  # type: ignore[arg-type]  # the names are those of such fields

    assert app.dead_letters.purge(where=nothing) == 0
    assert app.dead_letters.requeue(where=nothing).count == 0
    assert ids_in(app) == ["a", "b"]


def test_a_named_queue_without_dead_letters_queue_is_an_error(app: App) -> None:
    with pytest.raises(UnknownQueue, match=r"'nothere' \(known: mail, .*neither the broker nor this app"):
        app.dead_letters.find(["nothere"])


class Losing:
    """A transport whose consumer loses its connection, and which then has nothing any more."""

    def __init__(self) -> None:
        self.messages = 2

    def queue_status(self, name: str) -> QueueStatus:
        return QueueStatus(name=name, messages=self.messages, consumers=0)

    def consume(self, *args: Any, on_event: Callable[[ConsumerEvent], None], **options: Any) -> Self:
        on_event(ConsumerEvent(state=ConsumerState.LOST, epoch=1))
        return self

    def close(self, *, timeout: float) -> None:
        self.messages = 0


def test_a_lost_connection_ends_the_look() -> None:
    transport: Any = Losing()
    look = Look(transport, "mail", lambda _: True, keeps_bodies=False, limit=None)

    with pytest.raises(BrokerUnreachable, match="lost while looking"), look:
        list(look)

    assert transport.messages == 0


class Late:
    """A transport of two messages: one somebody else takes in time, the other is on its way until the consumer stops."""

    def __init__(self) -> None:
        self.messages, self.stopped = 2, list[str]()

    def queue_status(self, name: str) -> QueueStatus:
        return QueueStatus(name=name, messages=self.messages, consumers=0)

    def consume(
        self,
        *args: Any,
        on_deliveries: Callable[[list[Any]], None],
        on_event: Callable[[ConsumerEvent], None],
        **options: Any,
    ) -> Self:
        self.messages = 0
        self.on_deliveries, self.on_event = on_deliveries, on_event
        self.tell_consuming()
        return self

    def tell_consuming(self) -> None:
        self.on_event(ConsumerEvent(state=ConsumerState.CONSUMING, epoch=1))

    def pause_queues(self, names: list[str]) -> None:
        self.stopped += names
        self.on_deliveries([SimpleNamespace(properties=Properties(headers={"id": "late"}), body=b"")])
        self.tell_consuming()

    def close(self, *, timeout: float) -> None:
        self.messages = 1


def test_a_look_ends_with_what_was_on_its_way_when_others_took_the_rest() -> None:
    transport: Any = Late()
    look = Look(transport, "mail", lambda _: True, keeps_bodies=False, limit=None)

    with look:
        found = [each.letter.id for batch in look for each in batch]

    assert found == ["late"]
    assert transport.stopped == ["mail.dead"]
