"""Task messages, written: Celery's task protocol 2."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from amqp_tasks.errors import ConfigurationError, InvalidArguments
from amqp_tasks.message._amqp import (
    SIGNED_AS_TASK,
    HeaderTemplate,
    HeaderValue,
    OutgoingMessage,
    Properties,
)
from amqp_tasks.message._headers import MAX_SHORT, check_short, check_user_headers
from amqp_tasks.message._printable import MAX_REPR, bounded_repr, header_text
from amqp_tasks.message._process import current_origin, new_task_id
from amqp_tasks.serialization import JSON_TYPE, compress, compression_type, content_type_of, dumps
from amqp_tasks.serialization._json import encode_json_text

__all__ = ("EMPTY_EMBED", "TaskTemplate", "check_task_id", "check_task_name")

EMPTY_EMBED: Mapping[str, None] = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_EMPTY_EMBED_JSON = ',{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]'
_SMALL_BODY = 2048
"""Below it the plain repr of the arguments is as small as they are, and quicker than a bounded one."""


def check_task_id(task_id: str) -> str:
    """Return the id when it can be a correlation id.

    Raises:
        ConfigurationError: not text, empty, longer than 255 bytes of UTF-8, or not encodable.
    """
    return check_short(task_id, "task id")


def check_task_name(name: str) -> str:
    """Return the name when it can be sent: 1 to 255 bytes of UTF-8.

    Raises:
        ConfigurationError: it cannot.
    """
    return check_short(name, "task name")


class TaskTemplate:
    """What all messages of one task type and one set of options share, prepared once.

    Thread safety: any thread may build; after a fork the origin is renewed by the first build.
    """

    __slots__ = (
        "_compression", "_constant", "_content_type", "_encoding", "_fixed_origin", "_origin", "_reduced",
        "_template", "delivery_mode", "serializer", "task_name",
    )  # fmt: skip

    def __init__(
        self,
        task_name: str,
        *,
        serializer: str = "json",
        compression: str | None = None,
        ignore_result: bool = False,
        time_limit: float | None = None,
        soft_time_limit: float | None = None,
        delivery_mode: int = 2,
        origin: str | None = None,
    ) -> None:
        """Prepare.

        Args:
            task_name: 1 to 255 bytes of UTF-8.
            serializer: name or content type, see `amqp_tasks.serialization.dumps`.
            compression: method name, None for none.
            ignore_result: the caller's wish that no result is sent.
            time_limit: hard limit in seconds, None for the worker's own.
            soft_time_limit: soft limit in seconds, None for the worker's own.
            delivery_mode: 2 persistent, 1 transient.
            origin: who sends; by default `gen<pid>@<host>`, renewed after a fork.

        Raises:
            ConfigurationError: a task name that cannot be sent.
            ConfigurationError: unknown serializer or compression, or its extra is missing.
        """
        self.task_name = check_task_name(task_name)
        self.serializer = serializer
        self.delivery_mode = delivery_mode
        self._content_type = content_type_of(serializer)
        self._compression = compression_type(compression) if compression else None
        self._fixed_origin = origin
        self._constant: dict[str, HeaderValue] = {
            "lang": "py", "task": task_name, "shadow": None, "eta": None, "expires": None, "group": None,
            "group_index": None, "retries": 0, "timelimit": [time_limit, soft_time_limit],
            "ignore_result": ignore_result, "replaced_task_nesting": 0, "stamped_headers": None, "stamps": {},
        }  # fmt: skip
        if self._compression:
            self._constant["compression"] = self._compression
        self._origin = origin or ""
        # By the headers that are left out. Any thread adds; a race only makes one twice.
        self._reduced: dict[frozenset[str], HeaderTemplate] = {}
        self._template = self._renew(origin or current_origin())

    def _renew(self, origin: str) -> HeaderTemplate:
        self._template = HeaderTemplate({**self._constant, "origin": origin})
        self._reduced = {}
        self._origin = origin
        return self._template

    def _template_beside(self, own: Mapping[str, HeaderValue]) -> HeaderTemplate:
        """Without what a message has of its own: a header in both would have all encoded anew for each message."""
        whole = self._current_template()
        names = frozenset(own.keys() & whole.items.keys())
        if not names:
            return whole
        known = self._reduced.get(names)
        if known is None:
            left = {name: value for name, value in whole.items.items() if name not in names}
            known = self._reduced[names] = HeaderTemplate(left)
        return known

    def build(
        self,
        *,
        exchange: str,
        routing_key: str,
        task_id: str | None = None,
        args: tuple[Any, ...] | list[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        reply_to: str | None = None,
        priority: int | None = None,
        eta: float | datetime | None = None,
        expires: float | datetime | None = None,
        now: datetime | None = None,
        shadow: str | None = None,
        headers: Mapping[str, HeaderValue] | None = None,
        root_id: str | None = None,
        parent_id: str | None = None,
        argsrepr: str | None = None,
        kwargsrepr: str | None = None,
        embed: Mapping[str, Any] | None = None,
        changes: Mapping[str, HeaderValue] | None = None,
        further: Mapping[str, Any] | None = None,
    ) -> OutgoingMessage:
        """Build one message.

        Args:
            exchange: where to publish; '' is the default exchange.
            routing_key: with the default exchange, the queue's name.
            task_id: any text of 1 to 255 bytes; by default a new UUID.
            args: positional arguments.
            kwargs: keyword arguments.
            reply_to: the caller's reply queue, None for none.
            priority: 0 to 255, None for 0.
            eta: seconds from now, or an aware datetime, before which the task must not start.
            expires: the same, after which it must not start.
            now: the present, for `eta` and `expires`; by default the system's clock.
            shadow: another name for logs and events.
            headers: users' headers, merged at the top level.
            root_id: first task of the workflow; by default this one.
            parent_id: the task that sends this one.
            argsrepr: what logs show for `args`; by default a bounded repr.
            kwargsrepr: what logs show for `kwargs`; by default a bounded repr.
            embed: the body's third part; by default its four keys with null.
            changes: protocol headers that differ from the template's (`retries`, `group`, `group_index`, …).
            further: AMQP properties of the caller's own, from `check_further_properties`.

        Raises:
            ConfigurationError: a task id, priority, exchange, routing key, header name, `eta` or `expires` that cannot be sent.
            InvalidArguments: `args` is no list or tuple, or `kwargs` no mapping with text keys.
            EncodeError: an argument or header that cannot be written; the message names it.
        """
        task_id = new_task_id() if task_id is None else check_task_id(task_id)
        args, kwargs = _check_arguments(args, {} if kwargs is None else kwargs)
        body, encoding = self._encode(args, kwargs, embed)
        own: dict[str, HeaderValue] = {
            "id": task_id,
            "root_id": root_id or task_id,
            "parent_id": parent_id,
            "argsrepr": _label(args, argsrepr, body),
            "kwargsrepr": _label(kwargs, kwargsrepr, body) if kwargs or kwargsrepr else "{}",
        }
        delay = None
        is_plain = eta is None and expires is None
        if not is_plain:
            now = now or datetime.now(UTC)
            own["eta"], delay = _start(eta, now)
            own["expires"] = None if expires is None else _point_in_time(expires, now, "expires").isoformat()
        if shadow or changes or headers:
            is_plain = False
            _add_rare(own, shadow, changes, headers)
        return OutgoingMessage(
            exchange=_check_key(exchange, "exchange"),
            routing_key=_check_key(routing_key, "routing key"),
            body=compress(body, self._compression)[0] if self._compression else body,
            properties=Properties(
                content_type=self._content_type,
                content_encoding=encoding,
                headers=own,
                template=self._current_template() if is_plain else self._template_beside(own),
                delivery_mode=self.delivery_mode,
                priority=0 if priority is None else _check_priority(priority),
                correlation_id=task_id,
                reply_to=reply_to or "",
                **(further or {}),
            ),
            delay=delay,
            is_task=True,
            signed_as=SIGNED_AS_TASK,
        )

    def _current_template(self) -> HeaderTemplate:
        if self._fixed_origin is None and (origin := current_origin()) is not self._origin:
            return self._renew(origin)
        return self._template

    def _encode(
        self, args: tuple[Any, ...] | list[Any], kwargs: Mapping[str, Any], embed: Mapping[str, Any] | None
    ) -> tuple[bytes, str]:
        if embed is None and self._content_type == JSON_TYPE:
            # The constant end is joined on as text. What cannot be written is written again below, to be named.
            with suppress(Exception):
                return (encode_json_text((args, kwargs))[:-1] + _EMPTY_EMBED_JSON).encode("ascii"), "utf-8"
        _, encoding, body = dumps(
            self.serializer, (args, kwargs, embed or EMPTY_EMBED), parts=("args", "kwargs", "embed")
        )
        return body, encoding


def _check_arguments(args: Any, kwargs: Any) -> tuple[tuple[Any, ...] | list[Any], dict[str, Any]]:
    if not isinstance(args, (tuple, list)):
        raise InvalidArguments(f"args must be a list or tuple, got {type(args).__qualname__}")
    if not isinstance(kwargs, dict):
        if not isinstance(kwargs, Mapping):
            raise InvalidArguments(f"kwargs must be a mapping, got {type(kwargs).__qualname__}")
        kwargs = dict(kwargs)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    for key in kwargs:  # pyright: ignore[reportUnknownVariableType] - keys are what is checked
        if not isinstance(key, str):
            raise InvalidArguments(f"kwargs must have text keys, got {bounded_repr(key, 60)}")
    return args, kwargs  # pyright: ignore[reportUnknownVariableType]


def _add_rare(
    own: dict[str, HeaderValue],
    shadow: str | None,
    changes: Mapping[str, HeaderValue] | None,
    headers: Mapping[str, HeaderValue] | None,
) -> None:
    """Headers that few messages have; the user's last, which cannot name the protocol's."""
    if shadow:
        own["shadow"] = header_text(shadow, MAX_REPR)
    if changes:
        own.update(changes)
    if headers:
        check_user_headers(headers)
        own.update(headers)


def _label(value: Any, given: str | None, body: bytes) -> str:
    if given is not None:
        return header_text(given, MAX_REPR)
    if len(body) > _SMALL_BODY:
        return bounded_repr(value)
    try:
        return header_text(repr(value), MAX_REPR)
    except Exception:  # noqa: BLE001 - a user's __repr__ may raise anything; a label must not fail a send
        return bounded_repr(value)


def _check_key(text: str, what: str) -> str:
    if len(text) > MAX_SHORT // 4 and len(text.encode("utf-8", "replace")) > MAX_SHORT:
        raise ConfigurationError(f"{what} {text[:40]!r}… is longer than {MAX_SHORT} bytes")
    return text


def _check_priority(priority: int) -> int:
    if not 0 <= priority <= 255:
        raise ConfigurationError(f"priority must be 0 to 255, got {priority}")
    return priority


def _start(eta: float | datetime | None, now: datetime) -> tuple[str | None, float | None]:
    """The `eta` header and the delay until then; none when that is past."""
    if eta is None:
        return None, None
    at = _point_in_time(eta, now, "eta")
    left = (at - now).total_seconds()
    return at.isoformat(), left if left > 0 else None


def _point_in_time(value: float | datetime, now: datetime, what: str) -> datetime:
    if isinstance(value, datetime):
        if value.tzinfo is None:
            raise ConfigurationError(
                f"{what} must be an aware datetime: which zone's clock does a naive one mean?"
            )
        return value
    try:
        return now + timedelta(seconds=value)
    except (ValueError, OverflowError) as exc:
        raise ConfigurationError(
            f"{what} must be seconds from now that a calendar can hold, got {value!r:.40}"
        ) from exc
