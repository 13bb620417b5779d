"""Task messages as we write them."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice
from types import MappingProxyType
from typing import Any

import pytest

from amqp_tasks.errors import ConfigurationError, EncodeError, InvalidArguments
from amqp_tasks.message import (
    OutgoingMessage,
    TaskTemplate,
    current_origin,
    derived_ids,
    new_sortable_id,
    new_task_id,
)
from amqp_tasks.message._headers import is_table_value

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)


def build(**options: Any) -> OutgoingMessage:
    return TaskTemplate("pkg.add").build(exchange="", routing_key="default", **options)


def header(message: OutgoingMessage, name: str) -> Any:
    return message.properties.all_headers()[name]


def test_constant_headers_are_in_the_template_and_the_rest_is_not() -> None:
    template = TaskTemplate("pkg.add")

    first = template.build(exchange="", routing_key="default", args=(1,))
    second = template.build(exchange="", routing_key="default", args=(2,))

    assert first.properties.template is second.properties.template
    assert set(first.properties.headers) == {"id", "root_id", "parent_id", "argsrepr", "kwargsrepr"}
    assert first.properties.template is not None
    assert "id" not in first.properties.template.items


@pytest.mark.parametrize(
    "own",
    [
        {"changes": {"group": "g", "group_index": 1}},
        {"eta": 3.0},
        {"expires": 3.0, "shadow": "other"},
        {"changes": {"group": "g", "group_index": 1}, "eta": 3.0, "headers": {"tenant": "x"}},
    ],
)
def test_what_a_message_says_itself_is_not_in_its_template(own: dict[str, Any]) -> None:
    template = TaskTemplate("pkg.add")
    plain = template.build(exchange="", routing_key="default")

    first, second = (template.build(exchange="", routing_key="default", **own) for _ in range(2))

    shared = first.properties.template
    assert shared is not None
    assert shared is second.properties.template
    assert shared.items.keys().isdisjoint(first.properties.headers)
    assert first.properties.all_headers().keys() >= plain.properties.all_headers().keys()


def test_the_task_id_is_a_random_uuid_unless_given() -> None:
    message = build()

    task_id = header(message, "id")
    assert uuid.UUID(task_id).version == 4
    assert message.properties.correlation_id == header(message, "root_id") == task_id


def test_derived_ids_are_the_same_each_time_and_others_for_others() -> None:
    def first(task_id: str, place: str) -> list[str]:
        return list(islice(derived_ids(task_id, place), 3))

    assert first("a", "callback 0") == first("a", "callback 0")
    others = [first("a", "callback 0"), first("a", "callback 1"), first("b", "callback 0"), first("a c", "b")]
    others.append(first("a", "c b"))
    assert len({each for ids in others for each in ids}) == 15
    assert {uuid.UUID(each).version for each in first("\ud800", "")} == {5}


def test_new_task_ids_are_version_4_and_differ() -> None:
    ids = {new_task_id() for _ in range(5000)}

    assert len(ids) == 5000
    assert all(str(parsed := uuid.UUID(text)) == text and parsed.version == 4 for text in ids)
    assert {uuid.UUID(text).variant for text in ids} == {uuid.RFC_4122}


def test_both_sides_of_a_fork_that_python_does_not_see_make_ids_of_their_own() -> None:
    script = """
import ctypes, os
from amqp_tasks.message import new_task_id
new_task_id()
read, write = os.pipe()
pid = ctypes.PyDLL(None).fork()
ids = [new_task_id() for _ in range(500)]
if pid == 0:
    os.write(write, " ".join(ids).encode())
    os._exit(0)
os.waitpid(pid, 0)
print(len({*ids, *os.read(read, 1 << 16).decode().split()}))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.split() == ["1000"]


def test_sortable_ids_are_version_7_tell_their_time_and_differ() -> None:
    before = time.time_ns() // 1_000_000
    ids = [new_sortable_id() for _ in range(5000)]
    after = time.time_ns() // 1_000_000

    assert len(set(ids)) == 5000
    parsed = [uuid.UUID(text) for text in ids]
    assert [str(each) for each in parsed] == ids
    assert {(each.version, each.variant) for each in parsed} == {(7, uuid.RFC_4122)}
    moments = [each.int >> 80 for each in parsed]
    assert before <= moments[0] <= moments[-1] <= after
    assert moments == sorted(moments)


@pytest.mark.parametrize("task_id", ["x", "小家伙", "a" * 255, "é" * 127, "line\nend"])
def test_any_text_of_255_bytes_is_a_task_id(task_id: str) -> None:
    assert build(task_id=task_id).properties.correlation_id == task_id


@pytest.mark.parametrize("task_id", ["", "a" * 256, "é" * 128, "\ud800", 5, b"x"])
def test_other_task_ids_are_refused_before_publish(task_id: Any) -> None:
    with pytest.raises(ValueError, match="task id"):
        build(task_id=task_id)


@pytest.mark.parametrize("name", ["", "a" * 256, "\ud800", None])
def test_task_names_that_cannot_be_sent_are_refused(name: Any) -> None:
    with pytest.raises(ValueError, match="task name"):
        TaskTemplate(name)


def test_a_chinese_task_name_is_sent_as_it_is() -> None:
    message = TaskTemplate("任务.加").build(exchange="", routing_key="q")

    assert header(message, "task") == "任务.加"


def test_expires_in_seconds_becomes_a_time_that_only_workers_heed() -> None:
    """Row S070: the property `expiration` would have RabbitMQ take it away, and nobody would be told (ADR 0007)."""
    message = build(expires=90.5, now=NOW)

    assert header(message, "expires") == "2026-11-21T12:01:30.500000+00:00"
    assert message.properties.expiration is None


def test_an_aware_expires_keeps_its_offset() -> None:
    at = (NOW + timedelta(seconds=10)).astimezone(timezone(timedelta(hours=2)))

    message = build(expires=at, now=NOW)

    assert header(message, "expires") == at.isoformat()


@pytest.mark.parametrize("expires", [NOW.replace(tzinfo=None), float("nan"), float("inf"), 1e300])
def test_an_expires_that_names_no_moment_is_refused(expires: Any) -> None:
    with pytest.raises(ValueError, match="expires"):
        build(expires=expires, now=NOW)


@pytest.mark.parametrize("priority", [-1, 256])
def test_a_priority_outside_a_byte_is_refused(priority: int) -> None:
    with pytest.raises(ValueError, match="priority must be 0 to 255"):
        build(priority=priority)


@pytest.mark.parametrize("place", ["exchange", "routing_key"])
def test_exchange_and_routing_key_are_short_strings(place: str) -> None:
    where: dict[str, str] = {"exchange": "e", "routing_key": "k", place: "é" * 128}

    with pytest.raises(ValueError, match="longer than 255 bytes"):
        TaskTemplate("t").build(**where)  # type: ignore[arg-type]  # mypy sees only dict[str, str]


@pytest.mark.parametrize(
    "name", ["id", "task", "retries", "compression", "x-death", "x-delivery-count", "x-last-death-queue"]
)
def test_user_headers_cannot_name_the_protocols(name: str) -> None:
    with pytest.raises(ValueError, match=f"header '{name}' belongs to the task protocol"):
        build(headers={name: "x"})


@pytest.mark.parametrize(
    "value",
    [None, True, 5, -(2**63), 2.5, "张", b"\xff", Decimal("-1.25"), NOW, [1, ["x"]], {"a": {"b": None}}],
    ids=repr,
)
def test_what_an_amqp_table_holds_may_be_a_user_header(value: Any) -> None:
    assert header(build(headers={"x": value}), "x") == value


@pytest.mark.parametrize(
    "value",
    [
        2**63,
        {1, 2},
        (1,),
        "\ud800",
        Decimal("NaN"),
        Decimal("1e400"),
        NOW.replace(year=1960),
        [{"a": object()}],
        {1: 2},
        {"k" * 256: 1},
    ],
)
def test_other_user_headers_are_refused_by_name(value: Any) -> None:
    with pytest.raises(EncodeError, match=r"headers\['x'\]"):
        build(headers={"x": value})


@pytest.mark.parametrize("name", ["k" * 256, "\ud800", 5])
def test_user_header_names_are_short_strings(name: Any) -> None:
    with pytest.raises(EncodeError, match="headers has the key"):
        build(headers={name: 1})


@pytest.mark.parametrize("args", ["text", {"a": 1}, 5, {1}])
def test_args_must_be_a_sequence(args: Any) -> None:
    with pytest.raises(InvalidArguments, match="args must be a list or tuple"):
        build(args=args)


@pytest.mark.parametrize("kwargs", [[("a", 1)], "text", {1: 2}])
def test_kwargs_must_be_a_mapping_with_text_keys(kwargs: Any) -> None:
    with pytest.raises(InvalidArguments, match="kwargs must"):
        build(kwargs=kwargs)


def test_any_mapping_may_be_kwargs() -> None:
    kwargs: Mapping[str, int] = MappingProxyType({"a": 1})

    assert json.loads(build(kwargs=kwargs).body)[1] == {"a": 1}


def test_an_unserializable_argument_is_named() -> None:
    with pytest.raises(EncodeError, match=r"args\[1\]\['x'\]: object"):
        build(args=(1, {"x": object()}))
    with pytest.raises(EncodeError, match=r"kwargs\['k'\]\[0\]: set"):
        build(kwargs={"k": [set()]})


def test_giant_arguments_get_a_short_label_without_a_giant_repr() -> None:
    message = build(
        args=(["x" * 100_000] * 100, {str(n): n for n in range(100_000)}), kwargs={"k": "y" * 5000}
    )

    assert len(header(message, "argsrepr")) <= 1024
    assert len(header(message, "kwargsrepr")) <= 1024

    class Loud(str):
        __slots__ = ()

        def __repr__(self) -> str:
            raise AssertionError("the whole text was represented")

    assert header(build(args=(Loud("x" * 5000),)), "argsrepr").startswith("('xxx")


def test_labels_never_fail_a_send_and_fit_a_header() -> None:
    class Odd(str):
        __slots__ = ()

        def __repr__(self) -> str:
            return "\ud800" + "é" * 5000

    label = header(build(args=(Odd("x"),)), "argsrepr")

    assert is_table_value(label)
    assert len(label) <= 1030


def test_a_given_label_is_used() -> None:
    message = build(args=("secret",), kwargs={"password": "x"}, argsrepr="(***)", kwargsrepr="{***}")

    assert (header(message, "argsrepr"), header(message, "kwargsrepr")) == ("(***)", "{***}")


def test_an_unknown_serializer_or_compression_is_refused_at_once() -> None:
    with pytest.raises(ConfigurationError, match="unknown serializer"):
        TaskTemplate("t", serializer="xml")
    with pytest.raises(ConfigurationError, match="unknown compression"):
        TaskTemplate("t", compression="snappy")


def test_a_given_origin_stays() -> None:
    message = TaskTemplate("t", origin="worker@host").build(exchange="", routing_key="q")

    assert header(message, "origin") == "worker@host"


def test_after_a_fork_the_child_names_itself() -> None:
    script = """
import os
from amqp_tasks.message import TaskTemplate
template = TaskTemplate("t")
def origin():
    return template.build(exchange="", routing_key="q").properties.all_headers()["origin"]
before = origin()
pid = os.fork()
if pid == 0:
    os._exit(0 if origin().startswith(f"gen{os.getpid()}@") and origin() != before else 1)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), origin() == before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.split() == ["0", "True"]


def test_the_origin_is_cached() -> None:
    assert current_origin() is current_origin()


def test_embed_is_sent_when_given() -> None:
    embed = {"callbacks": None, "errbacks": None, "chain": [{"task": "x"}], "chord": None}

    assert json.loads(build(embed=embed).body) == [[], {}, embed]
