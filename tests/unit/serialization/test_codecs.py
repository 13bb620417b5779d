"""Serializers by name and content type, the accept list, and errors that name the culprit."""

from __future__ import annotations

import importlib
import importlib.util
import pickle
import socket
import subprocess
import sys
from datetime import timedelta
from typing import Any

import pytest

from amqp_tasks.errors import ConfigurationError, EncodeError, MalformedMessage
from amqp_tasks.serialization import Limits, _codecs, content_type_of, content_types, dumps, loads

kombu_serialization: Any = importlib.import_module("kombu.serialization")

VALUE = {"text": "张三", "n": [1, 2.5, None, True], "empty": {}}


@pytest.mark.parametrize("serializer", ["json", "msgpack", "yaml"])
def test_every_serializer_round_trips_and_kombu_reads_it(serializer: str) -> None:
    content_type, encoding, body = dumps(serializer, VALUE)

    assert isinstance(body, bytes)
    assert loads(content_type, encoding, body, accept=(serializer,)) == VALUE
    assert kombu_serialization.loads(body, content_type, encoding, accept={content_type}) == VALUE
    assert (content_type, encoding) == kombu_serialization.dumps(VALUE, serializer=serializer)[:2]


def test_content_types_are_names_too() -> None:
    assert content_types(["json", "application/x-msgpack"]) == {"application/json", "application/x-msgpack"}
    assert dumps("application/json", 1)[2] == b"1"


def test_an_unknown_serializer_lists_the_known() -> None:
    with pytest.raises(ConfigurationError, match="unknown serializer 'xml'; known: json, msgpack, yaml"):
        content_type_of("xml")


@pytest.mark.parametrize("name", ["pickle", "binary", "application/x-python-serialize"])
def test_pickle_cannot_be_configured(name: str) -> None:
    with pytest.raises(ConfigurationError, match="runs code found in messages"):
        content_types(("json", name))
    with pytest.raises(ConfigurationError, match="runs code found in messages"):
        dumps(name, 1)


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    content_type_of.cache_clear()

    with pytest.raises(ConfigurationError, match=r"pip install 'amqp-tasks\[yaml\]'"):
        content_type_of("yaml")


class _Trap:
    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("the pickle was loaded",))


@pytest.mark.parametrize(
    "content_type", ["application/x-python-serialize", "application/x-yaml", "text/plain", "", None]
)
def test_what_is_not_accepted_is_never_decoded(content_type: str | None) -> None:
    with pytest.raises(MalformedMessage) as caught:
        loads(content_type, "binary", pickle.dumps(_Trap()), accept=("json",))

    assert caught.value.reason == "content-type-refused"


@pytest.mark.parametrize(
    ("serializer", "body"),
    [
        ("msgpack", b"\xc1"),
        ("msgpack", b""),
        ("msgpack", b"\xdd\xff\xff\xff\xff"),
        ("yaml", b"{a: [}"),
        ("yaml", b""),
    ],
)
def test_broken_bodies_of_other_serializers_are_malformed(serializer: str, body: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        loads(content_type_of(serializer), None, body, accept=(serializer,))

    assert caught.value.reason == "bad-json"


@pytest.mark.parametrize(
    ("serializer", "body"),
    [
        ("msgpack", b"\x91" * 300 + b"\x90"),
        ("yaml", b"[" * 300 + b"]" * 300),
        ("yaml", b"&a [*a]"),
        ("yaml", b"[" * 9000 + b"]" * 9000),
    ],
)
def test_deep_bodies_of_other_serializers_are_too_deep(serializer: str, body: bytes) -> None:
    with pytest.raises(MalformedMessage) as caught:
        loads(content_type_of(serializer), None, body, accept=(serializer,), limits=Limits(max_depth=64))

    assert caught.value.reason == "too-deep"


def test_yaml_cannot_make_objects() -> None:
    with pytest.raises(MalformedMessage) as caught:
        loads("application/x-yaml", "utf-8", b"!!python/object/apply:os.getpid []", accept=("yaml",))

    assert caught.value.reason == "bad-json"


def test_a_yaml_of_shared_anchors_is_walked_in_reasonable_time() -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 30)]

    value = loads("application/x-yaml", "utf-8", "\n".join(lines).encode(), accept=("yaml",))

    assert len(value["a29"]) == 9


CULPRITS = [
    (([1, {"x": socket.socket}], {}), r"args\[1\]\['x'\]: type"),
    (((), {"when": timedelta(1)}), r"kwargs\['when'\]: datetime.timedelta; send total_seconds\(\)"),
    ((({1, 2},), {}), r"args\[0\]: set; make it a list"),
    (([{(1, 2): 3}], {}), r"args\[0\] has the key \(1, 2\): tuple; keys must be text"),
    (([10**5000], {}), r"args\[0\]: int"),
    (([[[object()]]], {}), r"args\[0\]\[0\]\[0\]: object"),
]


@pytest.mark.parametrize(("value", "said"), CULPRITS)
def test_an_encode_error_names_path_and_type(value: Any, said: str) -> None:
    with pytest.raises(EncodeError, match=said):
        dumps("json", value, parts=("args", "kwargs"))


def test_other_serializers_name_the_culprit_as_well() -> None:
    with pytest.raises(EncodeError, match=r"'msgpack': args\[1\]\['x'\]: object"):
        dumps("msgpack", ([1, {"x": object()}], {}), parts=("args", "kwargs"))
    with pytest.raises(EncodeError, match=r"'yaml': value\['x'\]: object"):
        dumps("yaml", {"x": object()})


def test_keys_that_msgpack_cannot_read_back_are_refused_where_they_are_written() -> None:
    with pytest.raises(EncodeError, match=r"'msgpack': args\[0\] has the key 1: int; keys must be text"):
        dumps("msgpack", ([{1: 2}], {}), parts=("args", "kwargs"))
    with pytest.raises(EncodeError, match=r"value\['x'\]\[0\] has the key None: NoneType"):
        dumps("msgpack", {"x": [{"a": 1, None: 2}]})


def test_keys_that_are_bytes_are_read_back_by_msgpack() -> None:
    content_type, encoding, body = dumps("msgpack", {b"\xff": 1, "x": 2})

    assert loads(content_type, encoding, body, accept=("msgpack",)) == {b"\xff": 1, "x": 2}


def test_an_encode_error_survives_hostile_reprs_and_reducers() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

        def __json__(self) -> object:
            raise OSError("no")

        def __hash__(self) -> int:
            return 1

    with pytest.raises(EncodeError, match="Hostile"):
        dumps("json", {"a": {Hostile(): 1}})
    with pytest.raises(EncodeError, match="Hostile"):
        dumps("json", [Hostile()])


def test_keys_that_json_knows_become_text_as_with_celery() -> None:
    assert dumps("json", {1: (2, 3)})[2] == b'{"1":[2,3]}'


def test_importing_and_using_json_loads_neither_kombu_nor_pydantic() -> None:
    script = """
import sys
from amqp_tasks.message import TaskTemplate
TaskTemplate("t").build(exchange="", routing_key="q", args=(1,))
print([name for name in ("kombu", "pydantic", "pika", "click", "rich", "asyncio") if name in sys.modules])
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.strip() == "[]"


@pytest.fixture(autouse=True)
def _forget_lookups() -> None:
    content_type_of.cache_clear()
    _codecs._content_types.cache_clear()
