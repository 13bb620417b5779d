"""Settings and options that a message shows: those of a task win over the settings, those of a call over both."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from amqp_tasks import group
from amqp_tasks.app import App
from support.raw import RawClient, RawMessage

MakeApp = Callable[..., App]

SETTINGS: tuple[tuple[str, dict[str, Any], Callable[[RawMessage], Any], Any], ...] = (
    ("serializer", {"serializer": "msgpack"}, lambda message: message.properties.content_type, "application/x-msgpack"),
    ("compression", {"compression": "bzip2"}, lambda message: message.headers.get("compression"), "application/x-bz2"),
    ("ignore_result", {"ignore_result": True}, lambda message: not message.properties.reply_to, True),
    ("default_priority", {"priority": 7}, lambda message: message.properties.priority, 7),
    ("default_delivery_mode", {"delivery_mode": 1}, lambda message: message.properties.delivery_mode, 1),
)  # fmt: skip
IDS = [name for name, *_ in SETTINGS]


def echo(text: str) -> str:
    return text


@pytest.mark.parametrize(("name", "option", "shown", "value"), SETTINGS, ids=IDS)
def test_a_setting_holds_for_tasks_that_say_nothing(
    make_app: MakeApp,
    raw_client: RawClient,
    name: str,
    option: dict[str, Any],
    shown: Callable[[RawMessage], Any],
    value: Any,
) -> None:
    app = make_app(accept_content=["json", "msgpack"])

    app.send_task("t", ["text"])
    assert shown(raw_client.get("default")) != value
    app.conf.update({f"task_{name}": next(iter(option.values()))})
    app.send_task("t", ["text"])
    assert shown(raw_client.get("default")) == value


@pytest.mark.parametrize(("name", "option", "shown", "value"), SETTINGS, ids=IDS)
def test_an_option_of_a_task_wins_over_the_setting_and_one_of_the_call_over_it(
    make_app: MakeApp,
    raw_client: RawClient,
    name: str,
    option: dict[str, Any],
    shown: Callable[[RawMessage], Any],
    value: Any,
) -> None:
    usual: dict[str, Any] = {
        "serializer": "json", "compression": "gzip", "ignore_result": False, "priority": 1, "delivery_mode": 2,
    }  # fmt: skip
    (key,) = option
    app = make_app(accept_content=["json", "msgpack"], **{f"task_{name}": usual[key]})
    of_task = app.adopt(echo, {"name": "of_task", **option})
    of_call = app.adopt(echo, {"name": "of_call", key: usual[key]})

    of_task.delay("text")
    assert shown(raw_client.get("default")) == value
    of_call.delay("text")
    assert shown(raw_client.get("default")) != value
    of_call.apply_async(("text",), **option)
    assert shown(raw_client.get("default")) == value


def test_a_compressed_body_is_smaller(make_app: MakeApp, raw_client: RawClient) -> None:
    app = make_app()

    app.send_task("t", ["text" * 1000])
    app.send_task("t", ["text" * 1000], compression="zlib")

    assert len(raw_client.get("default").body) > 10 * len(raw_client.get("default").body)


def test_an_expiry_of_a_task_is_counted_from_each_call(make_app: MakeApp, raw_client: RawClient) -> None:
    task = make_app().task(expires=60)(echo)

    task.delay("text")
    task.apply_async(("text",), expires=3600)

    first, second = (raw_client.get("default").headers["expires"] for _ in range(2))
    assert first is not None
    assert first < second


def test_tasks_without_a_route_go_to_the_default_exchange_that_is_set(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    app = make_app(
        task_default_queue="mails",
        task_default_exchange="office",
        task_default_exchange_type="topic",
        task_default_routing_key="mail.new",
    )

    app.send_task("t")

    message = raw_client.get("mails")
    assert (message.exchange, message.routing_key) == ("office", "mail.new")


def test_calling_a_task_as_a_function_sends_nothing(make_app: MakeApp, raw_client: RawClient) -> None:
    task = make_app().task(echo)
    task.delay("first")

    assert task("here") == "here"

    assert raw_client.get("default").body.startswith(b'[["first"]')
    assert raw_client.depth("default") == 0


def test_an_app_with_a_name_alone_is_configured_later(make_app: MakeApp, raw_client: RawClient) -> None:
    url = make_app().conf.broker_url

    class Config:
        broker_url = url
        result_backend = None
        task_default_queue = "configured"

    with App("late") as app:
        task = app.task(echo)
        app.config_from_object(Config)
        task.delay("text")

    assert raw_client.get("configured").headers["task"].endswith("echo")


def test_ids_of_calls_sort_by_their_time_where_that_is_asked(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    app = make_app(task_id_version=7)
    task = app.task(echo)

    ids = [task.delay("text").id, app.send_task("t", ["text"]).id]
    ids += [each.id for each in task.map_async([("a",), ("b",)])]
    ids += [each.id for each in group(task.s("a"), task.s("b"))()]

    assert [UUID(each).version for each in ids] == [7] * 6
    assert sorted(ids, key=lambda each: each[:13]) == ids
    assert [raw_client.get("default").headers["id"] for _ in ids] == ids


def test_a_call_says_what_is_shown_in_place_of_its_arguments(
    make_app: MakeApp, raw_client: RawClient
) -> None:
    task = make_app().task(sensitive=("text",))(echo)

    task.apply_async(kwargs={"text": "secret"}, kwargsrepr="{'text': <a letter>}")
    task.apply_async(("secret",), argsrepr="(<a letter>,)")
    task.delay("secret")

    first, second, third = (raw_client.get("default").headers for _ in range(3))
    assert first["kwargsrepr"] == "{'text': <a letter>}"
    assert second["argsrepr"] == "(<a letter>,)"
    assert "secret" not in third["argsrepr"]
