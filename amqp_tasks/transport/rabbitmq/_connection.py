"""One connection that is kept open: connect, back off, fail over, tell.

Life: `need` starts connecting (idempotent); `on_open` is called with each new connection, `on_lost` when an open one
is gone, `on_refused` when connecting ended for good (final errors at every address, retries used up or forbidden; the next `need`
starts anew). `rest` closes one that is not used, until the next `need`. `close` is final. All of it on the I/O thread; see `docs/explanation/connections.md`.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import Any

from pika import exceptions as pika_errors

from amqp_tasks.clock import Clock
from amqp_tasks.errors import BrokerConnectionError, BrokerUnreachable, ConfigurationError
from amqp_tasks.transport._contract import ServerInfo
from amqp_tasks.transport.rabbitmq._errors import REMEDY_UNREACHABLE, connection_error, lost_error
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from amqp_tasks.transport.rabbitmq._loop import DoorLoop
from amqp_tasks.transport.rabbitmq._options import Address, TransportOptions, connection_parameters
from amqp_tasks.transport.rabbitmq._services import Services

__all__ = ("Backoff", "Link", "LinkState", "discard")

LOGGER = logging.getLogger(__name__)
LOG_EVERY = 30.0
STABLE_AFTER = 1.0


class Backoff:
    """How long to wait before the next attempt: nothing, then 0.1 s doubling up to 2 s, jittered down by half."""

    FIRST = 0.1
    CAP = 2.0

    def __init__(self, *, rng: random.Random | None = None) -> None:
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self.attempts = 0

    def next(self) -> float:
        """The wait before the coming attempt, in seconds."""
        self.attempts += 1
        if self.attempts == 1:
            return 0.0
        full = min(self.CAP, self.FIRST * 2.0 ** min(self.attempts - 2, 16))
        return full * self._rng.uniform(0.5, 1.0)

    def reset(self) -> None:
        """It worked."""
        self.attempts = 0


class LinkState(Enum):
    """See `docs/explanation/connections.md`, "A connection"."""

    IDLE = "idle"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"
    CLOSED = "closed"


class Link:
    """Owner thread only."""

    def __init__(
        self,
        loop: DoorLoop,
        options: TransportOptions,
        *,
        name: str,
        clock: Clock,
        on_open: Callable[[FastConnection], None],
        on_lost: Callable[[BrokerConnectionError], None],
        on_refused: Callable[[BrokerConnectionError], None],
        on_failed: Callable[[BrokerConnectionError], None] | None = None,
        log_level: int = logging.WARNING,
    ) -> None:
        self._log_level = log_level  # of the news that there is no connection
        self._loop, self._options, self._name, self._clock = loop, options, name, clock
        self._on_open, self._on_lost, self._on_refused = on_open, on_lost, on_refused
        self._on_failed = on_failed
        self.state = LinkState.IDLE
        self.connection: FastConnection | None = None
        self.server: ServerInfo | None = None
        self.last_error: BrokerConnectionError | None = None
        self.connects = 0
        self._backoff = Backoff()
        self._addresses = list(options.addresses)
        self._index = 0
        self._finals = 0
        self._attempt = 0  # tells a late report of an abandoned attempt from the present one
        self._opening: FastConnection | None = None
        self._leaving: set[FastConnection] = set()  # say goodbye, as they were not used
        self._timer: Any = None
        self._down_since: float | None = None
        self._logged_at = 0.0
        self._opened_at = 0.0

    @property
    def address(self) -> Address:
        """The address in use, or tried last."""
        return self._addresses[self._index % len(self._addresses)]

    def need(self) -> None:
        """Have a connection; idempotent."""
        if self.state is LinkState.IDLE:
            self._connect()

    def _connect(self) -> None:
        self.state = LinkState.CONNECTING
        self._attempt += 1
        if self._options.failover_strategy == "shuffle" and self._index % len(self._addresses) == 0:
            random.shuffle(self._addresses)
        address = self.address
        if address.tls and not self._options.tls_verify:
            LOGGER.warning(
                "broker_tls_verify is off: %s is not verified, anybody in between can read and change messages",
                address.masked,
                extra={"action": "tls_unverified"},
            )
        try:
            self._opening = self._begin_attempt(address)
        except ConfigurationError as exc:
            self._refuse(BrokerUnreachable(str(exc), url=address.masked))
            return
        except Exception as exc:  # noqa: BLE001 - out of descriptors, say: whatever it is, it must be tried again
            self._failed(BrokerUnreachable(f"cannot connect to {address.masked}: {exc}", url=address.masked))
            return
        # The one limit for name resolution, TCP, TLS and AMQP together; pika has one for each, per address record.
        self._timer = self._loop.call_guarded(
            self._options.connection_timeout, partial(self._on_attempt_timeout, self._attempt)
        )

    def _begin_attempt(self, address: Address) -> FastConnection:
        return FastConnection(
            connection_parameters(address, self._options, name=self._name),
            on_open_callback=partial(self._on_opened, self._attempt),
            on_open_error_callback=partial(self._on_open_error, self._attempt),
            custom_ioloop=Services(self._loop),
        )

    def _on_attempt_timeout(self, attempt: int) -> None:
        if attempt != self._attempt or self.state is not LinkState.CONNECTING:
            return
        self._drop_attempt()
        self._failed(
            BrokerUnreachable(
                f"cannot connect to {self.address.masked}: no answer within"
                f" {self._options.connection_timeout:g} s{REMEDY_UNREACHABLE}",
                url=self.address.masked,
            )
        )

    def _on_opened(self, attempt: int, connection: Any) -> None:
        if attempt != self._attempt or self.state is not LinkState.CONNECTING:
            discard(connection)
            return
        self._stop_timer()
        self._opening = None
        self._opened(connection)

    def _on_open_error(self, attempt: int, _connection: Any, reason: BaseException) -> None:
        if attempt != self._attempt or self.state is not LinkState.CONNECTING:
            return
        self._stop_timer()
        self._opening = None
        address = self.address
        self._failed(connection_error(reason, url=address.masked, user=address.user, vhost=address.vhost))

    def _drop_attempt(self) -> None:
        """Forget the attempt under way; whatever it still reports is of the past."""
        self._attempt += 1
        opening, self._opening = self._opening, None
        if opening is not None and not opening.is_closed and not opening.is_closing:
            opening.close()

    def _opened(self, connection: FastConnection) -> None:
        self.state, self.connection = LinkState.OPEN, connection
        self.connects += 1
        self._opened_at = self._clock.monotonic()
        self._finals = 0
        self.last_error = None
        self.server = _server_info(connection, self.address)
        connection.add_on_close_callback(self._on_connection_closed)
        if self._down_since is not None:
            LOGGER.info(
                "connected to %s again after %.1f s",
                self.address.masked,
                self._clock.monotonic() - self._down_since,
                extra={"action": "broker_back"},
            )
            self._down_since = None
        self._on_open(connection)

    def _on_connection_closed(self, connection: Any, reason: Any) -> None:
        self._leaving.discard(connection)
        if connection is not self.connection:
            return
        self.connection = None
        if self.state is LinkState.CLOSED:
            return
        error = lost_error(reason, url=self.address.masked)
        error.__cause__ = reason
        self.last_error = error
        self._log_down(error)
        if self._clock.monotonic() - self._opened_at >= STABLE_AFTER:
            self._backoff.reset()  # a connection that is cut at once each time must not be retried in a tight loop
        self.state = LinkState.WAITING
        self._on_lost(error)
        if self.state is LinkState.WAITING:
            self._retry_later(error)

    def _failed(self, error: BrokerConnectionError) -> None:
        self.last_error = error
        self._log_down(error)
        self._finals = self._finals + 1 if error.is_final else 0
        self._index += 1
        if self._on_failed is not None:
            self._on_failed(error)
        if self._finals >= len(self._addresses):
            self._refuse(error)
            return
        self.state = LinkState.WAITING
        self._retry_later(error)

    def _retry_later(self, error: BrokerConnectionError) -> None:
        limit = self._options.connection_max_retries
        # A round over all addresses counts as one attempt.
        rounds = self._backoff.attempts // len(self._addresses)
        if not self._options.connection_retry or (limit is not None and rounds >= limit):
            self._refuse(error)
            return
        self._timer = self._loop.call_guarded(self._backoff.next(), self._connect_again)

    def _connect_again(self) -> None:
        if self.state is LinkState.WAITING:
            self._connect()

    def _refuse(self, error: BrokerConnectionError) -> None:
        self.state = LinkState.IDLE
        self.last_error = error
        self._finals = 0
        self._backoff.reset()
        self._on_refused(error)

    def _log_down(self, error: BrokerConnectionError) -> None:
        now = self._clock.monotonic()
        if self._down_since is None:
            self._down_since = now
        elif now - self._logged_at < LOG_EVERY:
            return
        self._logged_at = now
        LOGGER.log(self._log_level, "%s", error, extra={"action": "broker_down", "connection": self._name})

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._loop.remove_timeout(self._timer)
            self._timer = None

    def hand_to(
        self,
        *,
        on_open: Callable[[FastConnection], None],
        on_lost: Callable[[BrokerConnectionError], None],
        on_refused: Callable[[BrokerConnectionError], None],
    ) -> None:
        """Tell another owner from now on."""
        self._on_open, self._on_lost, self._on_refused = on_open, on_lost, on_refused

    def drop(self, why: str) -> None:
        """Cut an open connection that does not behave; it is made again."""
        if self.connection is not None:
            discard(self.connection, why)

    def rest(self) -> None:
        """Close an open connection politely. The next `need` makes another one, whatever becomes of this one."""
        assert self.state is LinkState.OPEN
        assert self.connection is not None
        connection, self.connection = self.connection, None
        self._leaving.add(connection)
        self.state = LinkState.IDLE
        self._backoff.reset()
        self._loop.call_guarded(self._options.setup_timeout, partial(self._end_goodbye, connection))
        connection.close()

    def _end_goodbye(self, connection: FastConnection) -> None:
        if connection in self._leaving:
            self._leaving.remove(connection)
            discard(connection)

    def close(self) -> None:
        """Close politely and for good; the caller bounds the time and then calls `cut`."""
        self.state = LinkState.CLOSED
        self._stop_timer()
        self._drop_attempt()
        for connection in tuple(self._leaving):
            self._end_goodbye(connection)
        if self.connection is not None and self.connection.is_open:
            self.connection.close()

    def cut(self) -> None:
        """Close without waiting for the broker."""
        self.state = LinkState.CLOSED
        self._stop_timer()
        self._drop_attempt()
        for connection in (self.connection, *self._leaving):
            if connection is not None:
                discard(connection)

    def abandon(self) -> None:
        """Close the descriptors and nothing else; see `FastConnection.abandon`."""
        for connection in (self.connection, self._opening, *self._leaving):
            if connection is not None:
                connection.abandon()

    @property
    def is_gone(self) -> bool:
        """Closed, and nothing of it is left."""
        return self.state is LinkState.CLOSED and self.connection is None


def discard(connection: FastConnection, why: str = "dropped by us") -> None:
    """End the stream without the closing handshake."""
    transport = connection._transport
    if transport is not None and not connection.is_closed:
        connection._terminate_stream(pika_errors.StreamLostError(why))


def _server_info(connection: FastConnection, address: Address) -> ServerInfo:
    properties: dict[str, Any] = connection.server_properties or {}
    version = str(properties.get("version", "0"))
    parts: list[int] = []
    for part in version.split("."):
        digits = part[: next((i for i, c in enumerate(part) if not c.isdigit()), len(part))]
        if not digits:
            break
        parts.append(int(digits))
    return ServerInfo(product=str(properties.get("product", "")), version=tuple(parts), url=address.masked)
