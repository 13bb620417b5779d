"""Signatures of messages: made where one is published, checked before anything of it is believed.

What is signed, byte for byte: `docs/reference/wire-protocol.md`, "Signatures". Why so: ADR 0010.
"""

from __future__ import annotations

import hmac
from calendar import timegm
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from struct import Struct
from struct import error as struct_error
from typing import Any, NoReturn

from amqp_tasks.errors import EncodeError, MalformedMessage
from amqp_tasks.message._amqp import HeaderValue, OutgoingMessage, Properties
from amqp_tasks.message._decimals import table_decimal
from amqp_tasks.message._headers import (
    RATE_HEADER,
    REQUEUES_HEADER,
    SIGNATURE_HEADER,
    SNOOZES_HEADER,
)
from amqp_tasks.message._printable import printable
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("KeyRing", "signed_part")

_VERSION = "1"
_OWN_PREFIX = "x-amqp-tasks-"
_NOTES = frozenset({SNOOZES_HEADER, REQUEUES_HEADER, RATE_HEADER, SIGNATURE_HEADER})
"""What is noted on the way of a message that is published again as it is, without a key."""
_OF_THE_BROKER = frozenset({"CC", "BCC", "timestamp_in_ms"})
"""RabbitMQ routes by the first two and takes them off; the last is added by one of its interceptors."""
_MAX_SHOWN = 80

_pack_u32 = Struct(">I").pack
_pack_integer = Struct(">cq").pack
_pack_double = Struct(">cd").pack
_pack_decimal = Struct(">cBi").pack
_pack_time = Struct(">cQ").pack


class KeyRing:
    """The keys by which messages are signed and checked. The first signs, all of them check.

    Thread safety: immutable.

    Args:
        keys: secrets by their ids, the one that signs first; at least one.
        requires: whether an unsigned message is refused.
    """

    __slots__ = ("_id", "_key", "_keys", "_requires")

    def __init__(self, keys: Mapping[str, bytes], *, requires: bool = True) -> None:
        self._keys, self._requires = dict(keys), requires
        self._id, self._key = next(iter(keys.items()))

    def __repr__(self) -> str:
        return f"KeyRing({', '.join(self._keys)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not pickled: a copy of them would lie wherever the pickle does")

    def sign(self, message: OutgoingMessage) -> None:
        """Sign a message that says as what, in place; others keep the signature that they came with, if any.

        Raises:
            EncodeError: a header that no AMQP field table holds.
        """
        if message.signed_as is None:
            return
        properties = message.properties
        part = signed_part(properties, message.body, message.signed_as, self._id)
        # A dictionary of its own: the headers may be somebody else's.
        properties.headers = {
            **properties.headers,
            SIGNATURE_HEADER: f"{_VERSION}:{self._id}:{_mac(self._key, part)}",
        }

    def check(self, properties: Properties, body: bytes, signed_as: str) -> None:
        """Refuse what none of the keys has signed as this.

        Raises:
            MalformedMessage: `unsigned` or `bad-signature`; its `task_id` is what the message says, if that is text.
        """
        signature = properties.headers.get(SIGNATURE_HEADER)
        if signature is None and not self._requires:
            return
        fault = _NOT_SIGNED if signature is None else self._fault(signature, properties, body, signed_as)
        if fault is None:
            return
        reason = DeadLetterReason.UNSIGNED if signature is None else DeadLetterReason.BAD_SIGNATURE
        task_id = properties.headers.get("id")
        raise MalformedMessage(reason, fault, task_id=task_id if isinstance(task_id, str) else "")

    def _fault(
        self, signature: HeaderValue, properties: Properties, body: bytes, signed_as: str
    ) -> str | None:
        version, key_id, mac = _read(signature)
        if version != _VERSION:
            return f"header {SIGNATURE_HEADER!r} is no signature of version {_VERSION}"
        key = self._keys.get(key_id)
        if key is None:
            return (
                f"it is signed by key {printable(key_id, _MAX_SHOWN)!r}, which is not in security_signing_keys: add that key, "
                "if it is one of yours"
            )
        try:
            found = _mac(key, signed_part(properties, body, signed_as, key_id))
        except (EncodeError, UnicodeEncodeError) as exc:
            return f"it has something that nobody can have signed: {exc}"
        if hmac.compare_digest(found.encode(), mac.encode("utf-8", "replace")):
            return None
        return (
            f"its signature by key {key_id!r} does not fit: it was changed on its way, signed for another purpose, or with another "
            "secret under the same id"
        )


_NOT_SIGNED = (
    "it is not signed, and security_require_signatures is on: give who sends it security_signing_keys; stock Celery clients cannot "
    "sign"
)


def _read(signature: HeaderValue) -> tuple[str, str, str]:
    parts = signature.split(":") if isinstance(signature, str) else ()
    return (parts[0], parts[1], parts[2]) if len(parts) == 3 else ("", "", "")


def _mac(key: bytes, part: bytes) -> str:
    return hmac.digest(key, part, "sha256").hex()


def signed_part(properties: Properties, body: bytes, signed_as: str, key_id: str) -> bytes:
    """What a signature is about, as bytes that no other message has.

    Raises:
        EncodeError: a header that no AMQP field table holds.
    """
    headers = _headers(properties)
    return b"".join(
        (
            _BEGIN,
            _text(key_id),
            _text(signed_as),
            _text(properties.content_type) if properties.content_type else _EMPTY,
            _text(properties.content_encoding) if properties.content_encoding else _EMPTY,
            _text(properties.correlation_id) if properties.correlation_id else _EMPTY,
            _text(properties.reply_to) if properties.reply_to else _EMPTY,
            _text(properties.message_id) if properties.message_id else _EMPTY,
            _text(properties.type) if properties.type else _EMPTY,
            _text(properties.app_id) if properties.app_id else _EMPTY,
            bytes((properties.priority or 0,)),
            _pack_u32(len(headers)),
            *headers,
            body,
        )
    )


def _headers(properties: Properties) -> list[bytes]:
    template, own = properties.template, properties.headers
    if template is None:
        found = _entries(own.items())
    elif own.keys().isdisjoint(template.items):
        if template.signed is None:
            template.signed = _entries(template.items.items())
        found = template.signed + _entries(own.items())
    else:
        found = _entries(properties.all_headers().items())
    found.sort()
    return found


def _entries(headers: Iterable[tuple[str, HeaderValue]]) -> list[bytes]:
    found: list[bytes] = []
    for name, value in headers:
        written = _written_names.get(name)
        if written is None:
            written = _write_name(name)
        if not written:
            continue
        if value is None:
            found.append(written + b"V")
        elif value.__class__ is str:  # the usual ones, without two calls
            data = value.encode()
            found.append(b"".join((written, b"S", _pack_u32(len(data)), data)))
        else:
            found.append(written + _value(value))
    return found


# Names of headers as they are written, empty for one that is not signed. Any thread adds, always the same; few, as anybody can make names up.
_written_names: dict[str, bytes] = {}
_MAX_NAMES = 512


def _write_name(name: str) -> bytes:
    written = _text(name) if _is_signed(name) else b""
    if len(_written_names) < _MAX_NAMES:
        _written_names[name] = written
    return written


def _is_signed(name: str) -> bool:
    if name.startswith("x-"):
        return name.startswith(_OWN_PREFIX) and name not in _NOTES
    return name not in _OF_THE_BROKER


def _text(text: str) -> bytes:
    data = text.encode()
    return _pack_u32(len(data)) + data


_BEGIN, _EMPTY = _text(f"amqp-tasks signature {_VERSION}"), _text("")


def _list(items: list[Any] | tuple[Any, ...]) -> bytes:
    return b"".join((b"A", _pack_u32(len(items)), *map(_value, items)))


def _table(table: Mapping[str, Any]) -> bytes:
    items = sorted(_text(name) + _value(value) for name, value in table.items())
    return b"".join((b"F", _pack_u32(len(items)), *items))


def _decimal(value: Decimal) -> bytes:
    written = table_decimal(value)
    if written is None:
        raise ValueError
    return _pack_decimal(b"D", *written)


_VALUES: dict[type, Callable[[Any], bytes]] = {
    str: lambda value: b"S" + _text(value),
    int: lambda value: _pack_integer(b"l", value),
    type(None): lambda _value: b"V",
    bool: lambda value: b"t\x01" if value else b"t\x00",
    float: lambda value: _pack_double(b"d", value),
    bytes: lambda value: b"x" + _pack_u32(len(value)) + value,
    list: _list,
    tuple: _list,
    dict: _table,
    Decimal: _decimal,
    datetime: lambda value: _pack_time(b"T", timegm(value.utctimetuple())),
}
"""By type, under the letters that AMQP has for these; integers all alike, as the wire chooses the shortest."""


def _value(value: Any) -> bytes:
    kind: type[object] = value.__class__
    encode = _VALUES.get(kind)
    if encode is None:
        base = next((each for each in kind.__mro__ if each in _VALUES), None)
        if base is None:
            raise EncodeError(f"a header cannot hold a {kind.__name__}")
        encode = _VALUES[base]
    try:
        return encode(value)
    except (struct_error, ArithmeticError, ValueError) as exc:
        raise EncodeError(f"a header cannot hold {printable(repr(value), _MAX_SHOWN)}") from exc
