"""What `confirm`, `retry` and `retry_policy` mean for workflows, which may begin with several messages."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from amqp_tasks import App, GroupResult, Workflow, chain, chord, group
from amqp_tasks.errors import BulkSendError, ConfigurationError, NotSent, PublishNacked
from support import RawClient, Vhost

FULL = {"x-max-length": 1, "x-overflow": "reject-publish"}


@pytest.fixture
def client(vhost: Vhost, raw_client: RawClient) -> Iterator[App]:
    """An app whose tasks go to a queue that holds one message."""
    raw_client.declare("full", FULL)
    with App("sending", broker=vhost.url, task_default_queue="full", topology="none") as app:
        yield app


def _members(app: App, count: int = 3) -> list[Any]:
    return [app.signature("t", (number,)) for number in range(count)]


def test_refused_messages_of_a_group_are_sent_again_as_its_policy_says(client: App, vhost: Vhost) -> None:
    found: list[str | None] = []

    def take_all() -> None:
        with RawClient(vhost.url) as raw:
            found.extend(raw.get("full", within=15).properties.correlation_id for _ in range(3))

    taking = threading.Thread(target=take_all)
    taking.start()
    policy = {"max_retries": None, "interval_start": 0.05, "interval_max": 0.05}
    result = group(_members(client)).apply_async(retry_policy=policy, timeout=15)
    taking.join(15)

    assert sorted(map(str, found)) == sorted(member.id for member in result)


@pytest.mark.parametrize("options", [{"retry": False}, {"retry_policy": {"max_retries": 0}}])
def test_without_retries_a_refused_message_of_a_group_is_told_at_once(
    client: App, raw_client: RawClient, options: dict[str, Any]
) -> None:
    with pytest.raises(BulkSendError) as caught:
        group(_members(client)).apply_async(timeout=15, **options)

    first, *others = caught.value.outcomes
    assert first is None
    assert [type(error) for error in others] == [PublishNacked] * 2
    assert raw_client.depth("full") == 1


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *((kind, {"retry": False}) for kind in ("chain", "group", "chord", "generator")),
        *((kind, {"retry_policy": {"max_retries": 0}}) for kind in ("chain", "group", "chord")),
    ],
)
def test_without_retries_a_broker_that_is_down_is_told_at_once(kind: str, options: dict[str, Any]) -> None:
    with App("down", broker="amqp://127.0.0.1:1//") as app:
        first, second, third = _members(app)
        parts: dict[str, Any] = {
            "chain": chain(first, second),
            "group": group(first, second),
            "chord": chord([first, second], third),
            "generator": group(each for each in (first, second)),
        }
        started = time.monotonic()

        with pytest.raises(NotSent):
            parts[kind].apply_async(timeout=30, **options)

        assert time.monotonic() - started < 10


@pytest.mark.parametrize("backend", ["rpc://", None])
@pytest.mark.parametrize("kind", ["chain", "group", "chord", "generator", "generator of chords", "steps"])
def test_a_broker_that_is_away_is_told_as_of_a_single_call(kind: str, backend: str | None) -> None:
    with App("down", broker="amqp://127.0.0.1:1//", result_backend=backend) as app:
        first, second, third = _members(app)
        parts: dict[str, Any] = {
            "chain": chain(first, second),
            "group": group(first, second),
            "chord": chord([first, second], third),
            "generator": group(each for each in (first, second)),
            "generator of chords": group(chord([each, third], third) for each in (first, second)),
            "steps": Workflow(id="w").step("a", first).step("b", second).step("c", third, after=["a", "b"]),
        }

        with pytest.raises(NotSent):
            parts[kind].apply_async(timeout=0.5)


def test_a_chain_without_confirm_does_not_wait_and_its_results_tell_the_failure(
    client: App, raw_client: RawClient
) -> None:
    raw_client.publish("full", b"in the way")
    first, second, third = _members(client)

    result = chain(first, second, group(third, first)).apply_async(confirm=False)

    assert isinstance(result, GroupResult)
    before = result.parent
    assert before is not None
    for each in (*result, before, before.root):
        with pytest.raises(PublishNacked):
            each.get(timeout=10)


def test_what_cannot_be_for_several_messages_is_refused_before_any_is_sent(
    client: App, raw_client: RawClient
) -> None:
    first, second, third = _members(client)

    for part in (group(first), chord([first], second), chain(group(first, second), third)):
        with pytest.raises(ConfigurationError, match="confirm=False is for one message"):
            part.apply_async(confirm=False)
    with pytest.raises(ConfigurationError, match="give the group a list"):
        group(each for each in (first, second)).apply_async(retry_policy={"max_retries": 1})

    assert raw_client.depth("full") == 0
