"""From settings to the transport that serves the broker's URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from amqp_tasks.clock import SYSTEM_CLOCK, Clock
from amqp_tasks.errors import ConfigurationError, UnsupportedTransport
from amqp_tasks.message import KeyRing
from amqp_tasks.transport._contract import Transport

if TYPE_CHECKING:
    from amqp_tasks.settings import BrokerUrl, SecuritySettings, Settings
    from amqp_tasks.transport.rabbitmq import Address, TransportOptions

__all__ = ("connect",)

RABBITMQ_SCHEMES = frozenset({"amqp", "amqps"})


def connect(settings: Settings, *, clock: Clock = SYSTEM_CLOCK) -> Transport:
    """The transport for `settings.broker.url`, chosen by its scheme; it signs what it publishes where there are keys for that.

    Does no I/O; the first use connects.

    Implementations are imported here and not before: a process that never talks to a broker pays for no client.

    Args:
        settings: validated settings; read once.
        clock: for deadlines.

    Raises:
        UnsupportedTransport: a scheme nobody serves.
        ConfigurationError: several URLs of different schemes.
    """
    plain, keys = _connect(settings, clock), key_ring(settings.security)
    if keys is None:
        return plain
    from amqp_tasks.transport._signing import SigningTransport

    return SigningTransport(plain, keys)


def _connect(settings: Settings, clock: Clock) -> Transport:
    urls = settings.broker.url
    schemes = {"memory" if url.scheme == "memory" else "amqp" for url in urls}
    if len(schemes) > 1:
        raise ConfigurationError("broker_url mixes memory:// with amqp:// URLs: use one kind")
    scheme = urls[0].scheme
    if scheme == "memory":
        from amqp_tasks.transport.memory import MemoryTransport

        return MemoryTransport(settings, clock=clock)
    if scheme in RABBITMQ_SCHEMES:
        from amqp_tasks.transport.rabbitmq import RabbitTransport

        return RabbitTransport(rabbitmq_options(settings), clock=clock)
    raise UnsupportedTransport(f"no transport for {scheme}://: amqp, amqps and memory are supported")


def key_ring(security: SecuritySettings) -> KeyRing | None:
    """The keys of the settings; None when there are none."""
    keys = {key.id: key.secret.get_secret_value().encode() for key in security.signing_keys}
    return KeyRing(keys, requires=security.require_signatures is not False) if keys else None


def rabbitmq_options(settings: Settings) -> TransportOptions:
    """What the RabbitMQ transport needs of the settings."""
    from amqp_tasks.transport.rabbitmq import TransportOptions

    broker, task = settings.broker, settings.task
    first = broker.url[0]
    use_ssl: dict[str, str | None] = {}
    if broker.use_ssl is not None:
        tls = broker.use_ssl
        password = tls.keyfile_password
        use_ssl = {
            "ca_certs": tls.ca_certs,
            "certfile": tls.certfile,
            "keyfile": tls.keyfile,
            "keyfile_password": password.get_secret_value() if password is not None else None,
            "server_hostname": tls.server_hostname,
        }
    return TransportOptions(
        addresses=tuple(_address(url, force_tls=broker.use_ssl is not None) for url in broker.url),
        failover_strategy=broker.failover_strategy,
        connection_timeout=first.connection_timeout or broker.connection_timeout,
        connection_retry=broker.connection_retry,
        connection_max_retries=broker.connection_max_retries,
        idle_timeout=broker.idle_timeout,
        heartbeat=first.heartbeat or broker.heartbeat,
        login_method=broker.login_method,
        use_ssl=use_ssl,
        tls_verify=broker.tls_verify,
        publish_timeout=task.publish_timeout,
        publish_window=task.publish_window,
        max_message_bytes=settings.app.max_message_bytes,
    )


def _address(url: BrokerUrl, *, force_tls: bool) -> Address:
    from amqp_tasks.transport.rabbitmq import Address

    return Address(
        host=url.host,
        port=url.port,
        user=url.user,
        password=url.password.get_secret_value(),
        vhost=url.vhost,
        tls=url.tls or force_tls,
    )
