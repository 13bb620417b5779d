"""Settings that are no other part's."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, field_validator

from amqp_tasks.settings._base import Count, Names, Section, SerializerName, expected, split_text

__all__ = ("AppSettings",)


class AppSettings(Section):
    """The application as a whole."""

    accept_content: Annotated[tuple[SerializerName, ...], BeforeValidator(split_text)] = Field(
        default=("json",),
        min_length=1,
        description="Formats of messages that are read, by name or content type; a message in another goes to the dead"
        " letters unread. Pickle is refused.",
    )
    imports: Names = Field(default=(), description="Modules that hold tasks, imported when the app is used.")
    include: Names = Field(default=(), description="As `imports`; for the app's own constructor.")
    topology: Literal["declare", "check", "none"] = Field(
        default="declare",
        description="`declare`: make missing queues, exchanges and bindings, and refuse ones that differ. `check`: only"
        " compare. `none`: take the broker as it is.",
    )
    max_message_bytes: Count = Field(
        default=16 * 1024 * 1024,
        description="Bytes a message body may have, sent or received; larger ones are refused.",
    )
    warn_message_bytes: Count = Field(
        default=1024 * 1024, description="Bytes of a message body above which sending it logs a warning."
    )
    timezone: str = Field(default="UTC", description="IANA name of the zone in which naive times are meant.")
    enable_utc: bool = Field(default=True, description="Times in messages are UTC. False is not supported.")

    @field_validator("topology", mode="before")
    @classmethod
    def _topology(cls, value: object) -> object:
        # In the environment the word means None for every other setting.
        return "none" if value is None else value

    @field_validator("timezone", mode="before")
    @classmethod
    def _timezone(cls, value: object) -> object:
        if value is None or value == "UTC":
            return "UTC"
        if isinstance(value, str) and _is_zone(value):
            return value
        raise expected("an IANA time zone such as 'Europe/Berlin'; on a machine without them install tzdata")

    @field_validator("enable_utc")
    @classmethod
    def _utc(cls, value: bool) -> bool:
        if not value:
            raise expected(
                "True, as times in messages are always UTC; remove it and set timezone for naive times"
            )
        return value


def _is_zone(name: str) -> bool:
    from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

    try:
        ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return False
    return True
