"""Settings of the connection to the broker."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, cast

from pydantic import BeforeValidator, Field, field_validator

from amqp_tasks.errors import ConfigurationError, UnsupportedTransport
from amqp_tasks.settings._base import PositiveSeconds, Section, expected, fault, no_bool
from amqp_tasks.settings._secrets import Secret
from amqp_tasks.settings._url import MAX_HEARTBEAT, BrokerUrl

__all__ = ("BrokerSettings", "TlsOptions")


def _secret(value: object) -> object:
    return Secret(value) if isinstance(value, str) else value


class TlsOptions(Section):
    """Certificates for the connection to the broker."""

    ca_certs: str | None = Field(
        default=None, description="File with the authorities to trust; None: the system's."
    )
    certfile: str | None = Field(default=None, description="File with the client's certificate.")
    keyfile: str | None = Field(default=None, description="File with its key; None: it is in `certfile`.")
    keyfile_password: Annotated[Secret | None, BeforeValidator(_secret)] = Field(
        default=None, description="Password of the key file."
    )
    server_hostname: str | None = Field(
        default=None, description="Name to expect in the broker's certificate; None: the URL's host."
    )


class BrokerSettings(Section):
    """The connection to the broker."""

    url: tuple[BrokerUrl, ...] = Field(
        default=(BrokerUrl(),),
        description="Address of the broker: `amqp://user:password@host:port/vhost`, `amqps://` for TLS, or `memory://`"
        " for the embedded one. Several, as a list or with `;` between them, are tried in turn. Left out parts are"
        " `guest:guest@localhost:5672` and the virtual host `/`, which is also written as a second slash at the end."
        " Percent-encode special characters. `?heartbeat=` and `?connection_timeout=` win over the settings of these"
        " names. The password is never shown.",
    )
    failover_strategy: Literal["round-robin", "shuffle"] = Field(
        default="round-robin",
        description="Order in which several broker URLs are tried: as written, or shuffled once per process.",
    )
    connection_timeout: PositiveSeconds = Field(
        default=5.0,
        description="Seconds for one attempt to connect, TLS and login included. A channel that takes more than twice"
        " as long to open, or to begin or end consuming, costs the connection.",
    )
    connection_retry: bool = Field(default=True, description="Whether a lost connection is opened again.")
    connection_retry_on_startup: bool = Field(
        default=True, description="Whether a worker waits for a broker that is not there when it starts."
    )
    connection_max_retries: Annotated[int, BeforeValidator(no_bool), Field(ge=0)] | None = Field(
        default=None, description="Attempts to connect again before giving up; None: no limit."
    )
    heartbeat: Annotated[int, BeforeValidator(no_bool), Field(ge=1, le=MAX_HEARTBEAT)] = Field(
        default=15,
        description="Seconds between heartbeats: a dead connection is noticed after two. Cannot be switched off; below"
        " 5 gives false alarms.",
    )
    idle_timeout: PositiveSeconds | None = Field(
        default=None,
        description="Seconds without use after which the connections of a process that calls tasks are closed: the one that publishes, and"
        " that for results, while none is waited for. The next call opens them again. None: they stay open, held by heartbeats.",
    )
    consumer_timeout: PositiveSeconds | None = Field(
        default=1800.0,
        description="Seconds that the broker is configured to wait for an acknowledgement (its own `consumer_timeout`,"
        " which no client can read); None: any time. A worker warns of late-acknowledged tasks with a longer time limit, and asks"
        " for what they need where the broker lets it (quorum queues, RabbitMQ 4.3).",
    )
    login_method: Literal["PLAIN", "EXTERNAL"] = Field(
        default="PLAIN",
        description="`PLAIN`: user and password. `EXTERNAL`: the client's certificate; needs TLS.",
    )
    use_ssl: TlsOptions | None = Field(
        default=None,
        description="Certificates for TLS, as a mapping with `ca_certs`, `certfile`, `keyfile`, `keyfile_password`,"
        " `server_hostname`. True is the same as an empty mapping. With `amqp://` it switches TLS on too.",
    )
    tls_verify: bool = Field(
        default=True,
        description="Whether the broker's certificate and host name are verified. False is for experiments.",
    )

    @field_validator("url", mode="before")
    @classmethod
    def _urls(cls, value: object) -> tuple[BrokerUrl, ...]:
        parts = value.split(";") if isinstance(value, str) else value
        if isinstance(parts, BrokerUrl):
            return (parts,)
        if not isinstance(parts, (list, tuple)) or not parts:
            raise expected("a URL such as 'amqp://user:password@host:5672/vhost', or a list of them")
        return tuple(_broker_url(part) for part in cast("Sequence[object]", parts))

    @field_validator("use_ssl", mode="before")
    @classmethod
    def _tls(cls, value: object) -> object:
        if isinstance(value, str):
            value = {"true": True, "false": False}.get(value.lower(), value)
        if not isinstance(value, bool):
            return value
        return TlsOptions() if value else None

    @field_validator("login_method", mode="before")
    @classmethod
    def _login(cls, value: object) -> object:
        return "PLAIN" if value is None else value


def _broker_url(part: object) -> BrokerUrl:
    if isinstance(part, BrokerUrl):
        return part
    if not isinstance(part, str):
        raise expected("a URL such as 'amqp://user:password@host:5672/vhost', or a list of them")
    try:
        return BrokerUrl.parse(part.strip())
    except ConfigurationError as exc:
        text, is_scheme = str(exc), isinstance(exc, UnsupportedTransport)
    # Outside of the handler: a chained error would carry frames that hold the plain URL.
    raise fault(text, "unsupported_transport" if is_scheme else "fault")
