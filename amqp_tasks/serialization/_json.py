"""JSON as Celery writes it: kombu's `{"__type__", "__value__"}` wrappers for what JSON lacks.

The C encoder and scanner of the standard library are called directly: `json.dumps` and `json.loads` build a new
encoder or walk through two Python frames on each call, which costs more than the work itself on small bodies.

Decided on purpose, all as stock Celery does, so that both sides read each other:
    * NaN, Infinity and -Infinity are written and read as these bare words.
    * The last of several equal keys wins.
    * Keys that are numbers, booleans or None become text; tuples become arrays.
    * Lone surrogates (undecodable file names) pass as `\\udcxx` escapes.
"""

from __future__ import annotations

import base64
import json
import json.encoder
import re
import sys
import uuid
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.serialization._faults import too_deep, unreadable
from amqp_tasks.serialization._limits import Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("decode_json", "encode_json", "encode_json_text")

_WRAPPER_KEYS = {"__type__", "__value__"}
_ESCAPED = re.compile(rb"\\.", re.DOTALL)
_STRINGS = re.compile(rb'"[^"]*"')
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_STRUCTURE = bytes(set(range(256)) - set(b'[]{}"'))


def _wrap(kind: str, value: object) -> dict[str, object]:
    return {"__type__": kind, "__value__": value}


def _wrap_bytes(value: bytes) -> dict[str, object]:
    try:
        return _wrap("bytes", value.decode("utf-8"))
    except UnicodeDecodeError:
        return _wrap("base64", base64.b64encode(value).decode("ascii"))


def _default(value: Any) -> Any:
    """Write what JSON has no form for. The order is kombu's: datetime before date, its base class."""
    reducer = getattr(value, "__json__", None)
    if reducer is not None:
        return reducer()
    match value:
        case datetime():
            return _wrap("datetime", value.isoformat())
        case date():
            return _wrap("date", value.isoformat())
        case time():
            return _wrap("time", value.isoformat())
        case Decimal():
            return _wrap("decimal", str(value))
        case uuid.UUID():
            return _wrap("uuid", {"hex": value.hex})
        case bytes():
            return _wrap_bytes(value)
        case _:
            return _registered_default(value)


def _registered_default(value: Any) -> Any:
    # A type registered with kombu's register_type, or Django's lazy text: only possible when kombu is loaded.
    kombu_json = sys.modules.get("kombu.utils.json")
    if kombu_json is not None:
        return kombu_json.JSONEncoder().default(value)
    django = sys.modules.get("django.utils.functional")
    if django is not None and isinstance(value, django.Promise):
        return str(value)
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _make_encoder() -> Callable[[Any], str]:
    make: Any = getattr(json.encoder, "c_make_encoder", None)  # not in the stubs
    if make is None:  # pragma: no cover - only without the C accelerator
        return json.JSONEncoder(default=_default, separators=(",", ":")).encode
    # No table of open containers: a shared one would mix up threads, and a circular value still ends, by RecursionError.
    chunks = make(None, _default, json.encoder.encode_basestring_ascii, None, ":", ",", False, False, True)
    join = "".join

    def encode(value: Any) -> str:
        return join(chunks(value, 0))

    return encode


encode_json_text = _make_encoder()
"""JSON text of a value; raises whatever the encoder, or a value's own `__json__`, raises."""


def encode_json(value: Any) -> bytes:
    """JSON bytes of a value; raises whatever the encoder, or a value's own `__json__`, raises."""
    return encode_json_text(value).encode("ascii")


def _unwrap_uuid(value: Any) -> uuid.UUID:
    # kombu calls UUID(**value); only the spelling that anybody writes is taken here.
    if value.keys() != {"hex"}:
        raise ValueError("a uuid must be {'hex': text}")
    return uuid.UUID(hex=value["hex"])


_UNWRAP: dict[str, Callable[[Any], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": lambda value: datetime.fromisoformat(value).date(),
    "time": time.fromisoformat,
    "decimal": Decimal,
    "uuid": _unwrap_uuid,
    "bytes": lambda value: value.encode("utf-8"),
    "base64": lambda value: base64.b64decode(value.encode("ascii")),
}


def _object_hook(found: dict[str, Any]) -> Any:
    if found.keys() != _WRAPPER_KEYS:
        return found
    kind = found["__type__"]
    unwrap = _UNWRAP.get(kind)
    if unwrap is not None:
        return unwrap(found["__value__"])
    kombu_json = sys.modules.get("kombu.utils.json")
    if kombu_json is not None:
        return kombu_json.object_hook(found)
    raise ValueError(f"unknown __type__ {kind!r:.40}")


class _Decoder(json.JSONDecoder):
    """The scanner that every JSONDecoder has, as far as we use it; typeshed leaves it out."""

    scan_once: Callable[[str, int], tuple[Any, int]]


_PLAIN = _Decoder()
_HOOKED = _Decoder(object_hook=_object_hook)


def decode_json(body: bytes, limits: Limits) -> Any:
    """Read a JSON body.

    Raises:
        MalformedMessage: `bad-encoding`, `bad-json` or `too-deep`.
    """
    try:
        text = str(body, "utf-8")
    except UnicodeDecodeError as exc:
        raise MalformedMessage(
            DeadLetterReason.BAD_ENCODING, f"the body is not UTF-8: {exc.reason} at {exc.start}"
        ) from exc
    try:
        value = _decode_text(text, _decoder_for(body, limits))
    except RecursionError as exc:
        raise too_deep(limits) from exc
    except (Exception, SystemExit) as exc:
        # A wrapper around the wrong value raises whatever its type says, also types that users registered.
        raise unreadable(exc) from exc
    if body.count(b"[") + body.count(b"{") > limits.max_depth and _is_deeper(body, limits.max_depth):
        raise too_deep(limits)
    return value


def _decode_text(text: str, decoder: _Decoder) -> Any:
    try:
        value, end = decoder.scan_once(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass  # the scanner's way to say that a value is missing; decode() says where
    return decoder.decode(text)


def _decoder_for(body: bytes, limits: Limits) -> _Decoder:
    interpreter_limit = sys.get_int_max_str_digits()
    hook = _object_hook if b"__type__" in body else None
    if 0 < interpreter_limit <= limits.max_int_digits or len(body) <= limits.max_int_digits:
        return _HOOKED if hook else _PLAIN

    def bounded_int(digits: str) -> int:
        if len(digits) > limits.max_int_digits:
            raise ValueError(
                f"an integer of {len(digits)} digits exceeds the limit of {limits.max_int_digits}"
            )
        return int(digits)

    return _Decoder(object_hook=hook, parse_int=bounded_int)


def _is_deeper(body: bytes, max_depth: int) -> bool:
    """Tell whether valid JSON nests deeper, in C-speed passes: each removes the innermost pair of brackets."""
    plain = _ESCAPED.sub(b"", body) if b"\\" in body else body
    # Most strings hold no brackets, so only their quotes are left; taking out a pair leaves the others paired as they were.
    skeleton = plain.translate(_BRACKETS, _NO_STRUCTURE).replace(b'""', b"")
    skeleton = _STRINGS.sub(b"", skeleton)
    for _ in range(max_depth):
        if not skeleton:
            return False
        skeleton = skeleton.replace(b"[]", b"")
    return bool(skeleton)
