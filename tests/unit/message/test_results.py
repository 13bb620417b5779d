"""Result messages."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from amqp_tasks.errors import EncodeError, MalformedMessage
from amqp_tasks.message import (
    OutgoingMessage,
    Properties,
    ResultRecord,
    State,
    build_result,
    read_result,
    write_result,
)

NOW = datetime(2026, 11, 21, 1, 2, 3, 4, tzinfo=UTC)
FULL = ResultRecord(
    task_id="i", status=State.SUCCESS, result={"sum": [1, None]}, traceback=None, children=[[["c", None], None]],
    date_done=NOW, group_id="g", parent_id="p", name="pkg.add", args=[1], kwargs={"k": 2}, worker="w@h", retries=1, queue="q",
)  # fmt: skip


def read(message: OutgoingMessage, **limits: Any) -> ResultRecord:
    return read_result(message.properties, message.body, accept=("json", "msgpack"), **limits)


def read_json(meta: object, **properties: Any) -> ResultRecord:
    properties = {"content_type": "application/json", "correlation_id": "i", **properties}
    return read_result(Properties(**properties), json.dumps(meta).encode(), accept=("json",))


@pytest.mark.parametrize("options", [{}, {"serializer": "msgpack"}, {"compression": "zlib"}])
def test_a_record_round_trips(options: dict[str, Any]) -> None:
    record = replace(FULL)
    write_result(record, **options)

    assert read(build_result(record, reply_to="r")) == FULL


def test_the_message_is_addressed_to_the_reply_queue() -> None:
    message = build_result(FULL, reply_to="r", correlation_id="c", persistent=False)

    assert (message.exchange, message.routing_key, message.mandatory) == ("", "r", True)
    assert (message.properties.correlation_id, message.properties.delivery_mode) == ("c", 1)


def test_fields_that_are_not_set_are_left_out() -> None:
    message = build_result(ResultRecord(task_id="i", status="STARTED", result={"pid": 1}), reply_to="r")

    assert set(json.loads(message.body)) == {
        "task_id",
        "status",
        "result",
        "traceback",
        "children",
        "date_done",
    }


def test_large_arguments_are_not_sent_back() -> None:
    record = ResultRecord(
        task_id="i", status=State.SUCCESS, result=1, name="t", args=["x" * 100_000], kwargs={}
    )

    message = build_result(record, reply_to="r")

    assert len(message.body) < 3000
    assert read(message).args.startswith("['xxx")


def test_arguments_that_the_result_serializer_cannot_write_do_not_lose_the_result() -> None:
    record = ResultRecord(task_id="i", status=State.SUCCESS, result=1, name="t", args=[object()], kwargs={})

    assert read(build_result(record, reply_to="r")).result == 1


def test_a_large_result_is_sent_whole() -> None:
    record = ResultRecord(
        task_id="i", status=State.SUCCESS, result="x" * 100_000, name="t", args=[1], kwargs={}
    )

    assert read(build_result(record, reply_to="r")).result == "x" * 100_000


def test_a_result_is_written_once_however_often_it_is_sent() -> None:
    written: list[int] = []

    class Value:
        def __json__(self) -> int:
            written.append(1)
            return len(written)

    record = ResultRecord(task_id="i", status=State.SUCCESS, result=Value())
    write_result(record, compression="gzip")

    messages = [build_result(record, reply_to="r") for _ in range(2)]

    assert [read(message).result for message in messages] == [1, 1]


def test_an_unserializable_result_is_named() -> None:
    record = ResultRecord(task_id="i", status=State.SUCCESS, result={"a": [object()]}, name="t")

    with pytest.raises(EncodeError, match=r"result message\['result'\]\['a'\]\[0\]: object"):
        build_result(record, reply_to="r")


def test_a_failure_is_told_even_when_the_serializer_cannot_write_its_arguments() -> None:
    failure = ValueError(NOW, "caf\udce9")
    record = ResultRecord(task_id="i", status=State.FAILURE, result=failure, traceback="caf\udce9")

    write_result(record, serializer="msgpack")
    read_back = read(build_result(record, reply_to="r"))

    assert read_back.result["exc_message"] == [repr(NOW), r"'caf\udce9'"]
    assert read_back.traceback == r"caf\udce9"


SHAPES: list[object] = [
    None, 5, [], {}, {"task_id": "i"}, {"status": "SUCCESS"}, {"task_id": 5, "status": "SUCCESS"},
    {"task_id": "i", "status": ["SUCCESS"]}, {"task_id": "", "status": "SUCCESS"}, {"task_id": "i", "status": "x" * 300},
]  # fmt: skip
FIELDS: list[dict[str, object]] = [
    {"traceback": 5}, {"children": 5}, {"children": {}}, {"date_done": "never"}, {"date_done": 5},
    {"date_done": "0001-01-01T00:00:00+23:00"}, {"retries": "x"}, {"worker": []}, {"name": {}},
]  # fmt: skip


@pytest.mark.parametrize(
    "meta", SHAPES + [{"task_id": "i", "status": "SUCCESS", **field} for field in FIELDS]
)
def test_a_result_of_another_shape_is_bad_body(meta: object) -> None:
    with pytest.raises(MalformedMessage) as caught:
        read_json(meta)

    assert (caught.value.reason, caught.value.task_id) == ("bad-body", "i")


def test_a_compression_header_that_is_no_text_is_bad_headers() -> None:
    with pytest.raises(MalformedMessage) as caught:
        read_json({"task_id": "i", "status": "SUCCESS"}, headers={"compression": 5})

    assert caught.value.reason == "bad-headers"


def test_unknown_fields_and_custom_states_are_taken() -> None:
    record = read_json({"task_id": "i", "status": "PROGRESS", "result": {"done": 5}, "stamps": 1})

    assert (record.status, record.result, record.is_ready()) == ("PROGRESS", {"done": 5}, False)


def test_ready_states_are_the_final_ones() -> None:
    assert {state for state in State if state.is_ready()} == {State.SUCCESS, State.FAILURE, State.REVOKED}
    assert ResultRecord(task_id="i", status="FAILURE").is_ready()
