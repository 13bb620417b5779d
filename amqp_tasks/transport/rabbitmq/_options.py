"""What the transport needs of the settings, as plain values.

The transport does not read settings objects on the I/O thread; `_connect` converts them once.
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote

import pika
from pika.credentials import ExternalCredentials

from amqp_tasks.errors import ConfigurationError

__all__ = ("Address", "TransportOptions", "connection_parameters")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One broker URL, taken apart."""

    host: str
    port: int
    user: str
    password: str = field(repr=False)
    vhost: str
    tls: bool = False

    @property
    def masked(self) -> str:
        """The URL for logs and errors."""
        scheme = "amqps" if self.tls else "amqp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        vhost = "/" if self.vhost == "/" else quote(self.vhost, safe="")
        return f"{scheme}://{quote(self.user, safe='')}:**@{host}:{self.port}/{vhost}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportOptions:
    """See the settings of the same names."""

    addresses: tuple[Address, ...]
    failover_strategy: str = "round-robin"
    connection_timeout: float = 5.0
    connection_retry: bool = True
    connection_max_retries: int | None = None
    idle_timeout: float | None = None
    heartbeat: int = 15
    login_method: str = "PLAIN"
    use_ssl: Mapping[str, str | None] = field(default_factory=dict[str, str | None], repr=False)
    tls_verify: bool = True
    publish_timeout: float = 30.0
    publish_window: int = 1000
    max_message_bytes: int = 16 * 1024 * 1024

    @property
    def setup_timeout(self) -> float:
        """Seconds for each step on an open connection: a channel with confirms, a consumer's beginning or end.

        A broker that takes longer is given up with the connection: heartbeats go on when a channel hangs.
        """
        return 2 * self.connection_timeout


def _tcp_options(heartbeat: int) -> dict[str, int]:
    wanted = {"TCP_KEEPIDLE": 10, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}
    if heartbeat:
        wanted["TCP_USER_TIMEOUT"] = (heartbeat + 5) * 1000
    return {name: value for name, value in wanted.items() if hasattr(socket, name)}


def _ssl_options(address: Address, options: TransportOptions) -> pika.SSLOptions | None:
    if not address.tls:
        return None
    given = options.use_ssl
    try:
        context = ssl.create_default_context(cafile=given.get("ca_certs"))
        if certfile := given.get("certfile"):
            # Never None: OpenSSL would ask for the password on the terminal, on the I/O thread.
            context.load_cert_chain(certfile, given.get("keyfile"), given.get("keyfile_password") or "")
    except OSError as exc:
        raise ConfigurationError(f"broker_use_ssl: cannot load certificates: {exc}") from exc
    if not options.tls_verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return pika.SSLOptions(context, given.get("server_hostname") or address.host)


def connection_parameters(
    address: Address, options: TransportOptions, *, name: str
) -> pika.ConnectionParameters:
    """pika's parameters for one attempt at one address.

    Raises:
        ConfigurationError: certificates that cannot be loaded.
    """
    external = options.login_method == "EXTERNAL"
    return pika.ConnectionParameters(
        host=address.host,
        port=address.port,
        virtual_host=address.vhost,
        credentials=ExternalCredentials()
        if external
        else pika.PlainCredentials(address.user, address.password),
        heartbeat=options.heartbeat,
        connection_attempts=1,
        retry_delay=0,
        # Leaves time for a second address record when the first is a black hole; `Link` limits the whole attempt.
        socket_timeout=options.connection_timeout * 0.6,
        stack_timeout=None,
        ssl_options=_ssl_options(address, options),
        tcp_options=_tcp_options(options.heartbeat),
        client_properties={"connection_name": name, "product": "amqp-tasks"},
    )
