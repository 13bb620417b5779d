"""Values to bodies and back: JSON by our own module, everything else through kombu's registry, loaded when used."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Collection
from functools import lru_cache
from typing import Any

from amqp_tasks.errors import ConfigurationError, EncodeError, MalformedMessage
from amqp_tasks.serialization._culprit import describe_culprit
from amqp_tasks.serialization._faults import too_deep, unreadable
from amqp_tasks.serialization._json import decode_json, encode_json
from amqp_tasks.serialization._limits import DEFAULT_LIMITS, Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = ("JSON_TYPE", "content_type_of", "content_types", "dumps", "loads")

JSON_TYPE = "application/json"
_NAMES = {"json": JSON_TYPE, "msgpack": "application/x-msgpack", "yaml": "application/x-yaml"}
_EXTRAS = {"application/x-msgpack": ("msgpack", "msgpack"), "application/x-yaml": ("yaml", "yaml")}
_READ_BACK = frozenset({"application/x-msgpack"})
"""It writes keys of every type, and reads text and bytes only: who calls must be told, for nobody could read the message."""
_CODE_RUNNERS = frozenset({"pickle", "binary", "application/x-python-serialize"})


@lru_cache(maxsize=64)
def content_type_of(serializer: str) -> str:
    """The content type of a serializer, given by name or content type.

    Names beyond json, msgpack and yaml are looked up among those registered with `kombu.serialization.register`.

    Raises:
        ConfigurationError: unknown, its extra is not installed, or it runs code from the message (pickle).
    """
    if serializer in _CODE_RUNNERS:
        raise ConfigurationError(
            f"serializer {serializer!r} runs code found in messages and is not supported; use 'json' or 'msgpack'"
        )
    content_type = _NAMES.get(serializer, serializer)
    if content_type in _EXTRAS:
        module, extra = _EXTRAS[content_type]
        if importlib.util.find_spec(module) is None:
            raise ConfigurationError(
                f"serializer {serializer!r} needs an extra: pip install 'amqp-tasks[{extra}]'"
            )
    elif content_type != JSON_TYPE:
        content_type = _registered_type(serializer)
    return content_type


def _kombu_registry() -> Any:
    # Imported by name, as kombu ships no types; a producer that only writes JSON never loads it.
    return importlib.import_module("kombu.serialization").registry


def _registered_type(serializer: str) -> str:
    registry = _kombu_registry()
    if serializer in registry.type_to_name:
        return serializer
    found: str | None = registry.name_to_type.get(serializer)
    if found is None:
        known = ", ".join(sorted(_NAMES))
        raise ConfigurationError(
            f"unknown serializer {serializer!r}; known: {known}, or register it with kombu"
        )
    return found


def content_types(accept: Collection[str]) -> frozenset[str]:
    """The content types that an accept list (names or content types) stands for.

    Raises:
        ConfigurationError: see `content_type_of`; so a worker that calls this at start fails then, not later.
    """
    return _content_types(accept if isinstance(accept, tuple) else tuple(accept))


@lru_cache(maxsize=64)
def _content_types(accept: tuple[str, ...]) -> frozenset[str]:
    return frozenset(content_type_of(name) for name in accept)


def dumps(
    serializer: str, value: Any, *, root: str = "value", parts: tuple[str, ...] = ()
) -> tuple[str, str, bytes]:
    """Serialize a value.

    Args:
        serializer: `json`, `msgpack`, `yaml`, or a name registered with kombu.
        value: what to write.
        root: what errors call the value.
        parts: what errors call the value's items, when it is a tuple of named parts.

    Returns:
        Content type, content encoding and body.

    Raises:
        EncodeError: something in the value cannot be written; the message names its path and type.
        ConfigurationError: see `content_type_of`.
    """
    if serializer in ("json", JSON_TYPE):
        try:
            return JSON_TYPE, "utf-8", encode_json(value)
        except (Exception, SystemExit) as exc:
            # Values bring code of their own (`__json__`), so anything may be raised here.
            culprit = describe_culprit(value, root=root, parts=parts, encode=encode_json)
            raise EncodeError(f"cannot be written as JSON: {culprit}") from exc
    return _dumps_by_kombu(serializer, value, root, parts)


def _dumps_by_kombu(serializer: str, value: Any, root: str, parts: tuple[str, ...]) -> tuple[str, str, bytes]:
    registry = _kombu_registry()
    name: str = registry.type_to_name[content_type_of(serializer)]
    try:
        content_type, encoding, body = _encoded(registry, name, value)
    except (Exception, SystemExit) as exc:
        # kombu wraps what encoders raise in an error of its own, which must not leave this module.
        culprit = describe_culprit(
            value, root=root, parts=parts, encode=lambda part: _encoded(registry, name, part)
        )
        raise EncodeError(f"cannot be written by serializer {name!r}: {culprit}") from exc
    return content_type, encoding, body.encode("utf-8") if isinstance(body, str) else body


def _encoded(registry: Any, name: str, value: Any) -> tuple[str, str, bytes | str]:
    content_type, encoding, body = registry.dumps(value, serializer=name)
    if content_type in _READ_BACK:
        registry.loads(body, content_type, encoding, accept={content_type})
    return content_type, encoding, body


def loads(
    content_type: str | None,
    content_encoding: str | None,
    body: bytes,
    *,
    accept: Collection[str],
    limits: Limits = DEFAULT_LIMITS,
) -> Any:
    """Read a body by its content type, which must be in the accept list; a missing one is refused.

    Args:
        content_type: as the message says.
        content_encoding: used by serializers registered with kombu only; JSON is always UTF-8.
        body: decompressed.
        accept: names or content types.
        limits: see `Limits`.

    Raises:
        MalformedMessage: `content-type-refused`, `too-large`, `bad-encoding`, `bad-json` or `too-deep`.
        ConfigurationError: the accept list itself is wrong.
    """
    accepted = content_types(accept)
    if content_type not in accepted:
        said = f"{content_type!r:.80}" if content_type else "no content type"
        raise MalformedMessage(
            DeadLetterReason.CONTENT_TYPE_REFUSED,
            f"{said} is not accepted here (accepted: {', '.join(sorted(accepted))})",
        )
    if content_type == JSON_TYPE:
        return decode_json(body, limits)
    return _loads_by_kombu(content_type, content_encoding, body, limits)


def _loads_by_kombu(content_type: str, content_encoding: str | None, body: bytes, limits: Limits) -> Any:
    if not body:
        raise MalformedMessage(DeadLetterReason.BAD_JSON, "the body is empty")
    try:
        value = _kombu_registry().loads(body, content_type, content_encoding, accept={content_type})
    except RecursionError as exc:
        raise too_deep(limits) from exc
    except (Exception, SystemExit) as exc:
        # Registered decoders are foreign code; whatever they raise is the message's fault here.
        if isinstance(exc.__context__, RecursionError):
            raise too_deep(limits) from exc
        raise unreadable(exc) from exc
    _check_depth(value, limits)
    return value


def _check_depth(value: Any, limits: Limits) -> None:
    # YAML can make a container hold itself or hold the same one a million times: each is walked once per depth.
    deepest: dict[int, int] = {}
    stack: list[tuple[Any, int]] = [(value, 1)]
    while stack:
        item, depth = stack.pop()
        if not isinstance(item, list | tuple | dict) or deepest.get(id(item), 0) >= depth:  # pyright: ignore[reportUnknownArgumentType]
            continue
        if depth > limits.max_depth:
            raise too_deep(limits)
        deepest[id(item)] = depth  # pyright: ignore[reportUnknownArgumentType] - any container
        children: Any = item.values() if isinstance(item, dict) else item  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        stack.extend((child, depth + 1) for child in children)
