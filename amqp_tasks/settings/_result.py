"""Settings of results."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, field_validator

from amqp_tasks.settings._base import (
    Count,
    PositiveSeconds,
    Section,
    SerializerName,
    expected,
    split_text,
)
from amqp_tasks.settings._task import Compression, QueueTypeName, compression_name, store_url
from amqp_tasks.settings._url import ResultUrl

__all__ = ("ResultSettings",)


class ResultSettings(Section):
    """Results: where they go and how long they stay."""

    backend: ResultUrl | None = Field(
        default=ResultUrl(scheme="rpc"),
        description="`rpc://`: results come back to the process that asked. None or `disabled`: no results.",
    )
    serializer: SerializerName = Field(
        default="json", description="How results are written: `json`, `msgpack` or `yaml`."
    )
    accept_content: Annotated[tuple[SerializerName, ...] | None, BeforeValidator(split_text)] = Field(
        default=None, description="Formats of results that are read; None: as `accept_content`."
    )
    expires: PositiveSeconds = Field(
        default=86_400.0,
        description="Seconds that a result, and the reply queue of a process that is gone, stay with the broker. A"
        " timedelta is understood.",
    )
    persistent: bool = Field(default=True, description="Whether results survive a broker restart.")
    compression: Annotated[Compression | None, BeforeValidator(compression_name)] = Field(
        default=None,
        description="How results are compressed: `gzip`, `bzip2`, `lzma`, `zstd`; None: they are not.",
    )
    queue_type: QueueTypeName | None = Field(
        default=None,
        description="Type of the queue in which a process gets its results: `classic` is quicker to declare, `quorum` outlives the"
        " death of a cluster's node. None: `quorum` when `broker_url` names several addresses, else `classic`.",
    )
    extended: bool = Field(
        default=True,
        description="Whether results carry the task's name, arguments, worker, queue and retries too.",
    )
    exceptions: tuple[Any, ...] = Field(
        default=(),
        description="Exception classes that `get()` raises as themselves, as classes or dotted names of classes in"
        " modules that are already imported; all others are raised as RemoteError.",
    )
    cache_max: Count = Field(
        default=10_000,
        description="Finished results nobody has looked at that are kept in the client; further ones wait in the reply queue until somebody asks.",
    )

    @field_validator("backend", mode="before")
    @classmethod
    def _backend(cls, value: object) -> ResultUrl | None:
        if value is None or value in ("", "disabled", "disabled://"):
            return None
        if isinstance(value, (str, ResultUrl)):
            return _supported(value if isinstance(value, ResultUrl) else store_url(value))
        raise expected("'rpc://', or None or 'disabled' for no results")

    @field_validator("exceptions", mode="before")
    @classmethod
    def _exceptions(cls, value: Any) -> tuple[Any, ...]:
        given = split_text(value)
        if not isinstance(given, (list, tuple, set, frozenset)):
            raise expected("a list of exception classes or of their dotted names")
        items = cast("Collection[object]", given)
        for item in items:
            if not isinstance(item, str) and not (isinstance(item, type) and issubclass(item, Exception)):
                raise expected("a list of exception classes or of their dotted names")
        return tuple(items)


def _supported(url: ResultUrl) -> ResultUrl:
    if url.scheme == "rpc":
        return url
    raise expected(f"'rpc://', or None or 'disabled' for no results; there is no store for {url.masked} yet")
