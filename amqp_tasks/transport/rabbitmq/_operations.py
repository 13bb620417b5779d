"""Topology operations as scripts: generators that ask one method at a time, run on a channel of their own.

A script yields `Ask`s and gets the broker's answers; when the broker closes the channel over one, the script
gets a `BrokerOperationError` at that place and its next ask runs on a new channel.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from pika import exceptions as pika_errors

from amqp_tasks.errors import BrokerUnreachable
from amqp_tasks.transport.rabbitmq._connection import discard
from amqp_tasks.transport.rabbitmq._errors import operation_error, reply_of, unknown_exchange_type, unwritable
from amqp_tasks.transport.rabbitmq._fastwire import FastConnection
from amqp_tasks.transport.rabbitmq._loop import DoorLoop

__all__ = ("Ask", "Operation", "Script")

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Ask:
    """One AMQP method: pika's channel method, its arguments, and words for an error.

    One that is not answered, a publish, is followed by one that is: what the broker says against the first comes as an
    error of the second.
    """

    method: str
    arguments: dict[str, Any]
    doing: str
    is_answered: bool = True


Script = Generator[Ask, Any, R]


class Operation:
    """Runs one script on one connection. Owner thread only.

    `on_done(result, error)` is called exactly once: the script's result, what it raised, or `BrokerUnreachable` when the
    connection was lost or `timeout` passed.
    """

    def __init__(
        self,
        loop: DoorLoop,
        connection: FastConnection,
        script: Script[Any],
        *,
        timeout: float,
        on_done: Callable[[Any, Exception | None], None],
    ) -> None:
        self._loop, self._connection, self._script, self._on_done = loop, connection, script, on_done
        self._channel: Any = None
        self._ask: Ask | None = None
        self.is_over = False
        self._timer = loop.call_guarded(timeout, self._on_timeout)

    def start(self) -> None:
        """Run the script up to its first ask."""
        self._connection.when_gone.add(self._on_gone)
        self._advance(partial(next, self._script))

    def _advance(self, step: Callable[[], Ask]) -> None:
        if self.is_over:
            return
        try:
            self._ask = step()
        except StopIteration as stop:
            self._finish(stop.value, None)
        except Exception as exc:  # noqa: BLE001 - not only ours: whoever waits must hear of any fault
            self._finish(None, exc)
        else:
            self._perform()

    def _perform(self) -> None:
        if not self._connection.is_open:
            self._fail_lost(None)
        elif self._channel is None:
            try:
                channel = self._connection.channel(on_open_callback=self._on_channel_open)
            except pika_errors.NoFreeChannels as exc:
                self._fail_full(exc)
                return
            channel.add_on_close_callback(self._on_channel_closed)
            self._channel = channel
        else:
            self._send()

    def _on_channel_open(self, channel: Any) -> None:
        if self.is_over:
            if channel.is_open:
                channel.close()  # it opened after the time was up
        elif channel is self._channel:
            self._send()

    def _send(self) -> None:
        ask = self._ask
        assert ask is not None
        try:
            method = getattr(self._channel, ask.method)
            if ask.is_answered:
                method(callback=partial(self._on_answer, ask), **ask.arguments)
            else:
                method(**ask.arguments)
        except (pika_errors.AMQPError, TypeError, ValueError) as exc:
            error = unwritable(ask.doing, exc) or operation_error(ask.doing, exc)
            self._advance(lambda: self._script.throw(error))
        else:
            if not ask.is_answered:
                self._advance(partial(self._script.send, None))

    def _on_answer(self, ask: Ask, frame: Any) -> None:
        if ask is self._ask:
            self._advance(partial(self._script.send, frame.method))

    def _on_channel_closed(self, channel: Any, reason: Any) -> None:
        if channel is not self._channel or self.is_over:
            return
        self._channel = None
        code, _text = reply_of(reason)
        if self._connection.is_open and code:
            assert self._ask is not None
            error = operation_error(self._ask.doing, reason)
            self._advance(lambda: self._script.throw(error))
        elif self._is_to_blame(reason):
            # Asked again it would close the next connection as well, and disturb all who share it.
            self._finish(None, operation_error(self.doing, reason))
        else:
            self._fail_lost(reason)

    def _on_gone(self) -> None:
        """The connection has ended, and our channel did not say so."""
        if not self.is_over:
            self._channel = None
            self._fail_lost(None)

    def _is_to_blame(self, reason: BaseException) -> bool:
        """Whether the whole connection was closed over our ask, and not over what another channel did."""
        asked = self._ask.arguments.get("exchange_type") if self._ask is not None else None
        return asked is not None and asked == unknown_exchange_type(reason)

    def _fail_full(self, reason: BaseException) -> None:
        if self._connection.silent_channels:
            # They never answered, and never will: the next connection has room.
            discard(self._connection, f"{self._connection.silent_channels} channels did not answer")
            self._fail_lost(reason)
            return
        error = BrokerUnreachable(f"no channel is free for {self.doing}: raise the broker's channel_max")
        error.__cause__ = reason
        self._finish(None, error)

    def _fail_lost(self, reason: BaseException | None) -> None:
        error = BrokerUnreachable(f"the connection was lost while {self.doing}")
        error.__cause__ = reason
        self._finish(None, error)

    def _on_timeout(self) -> None:
        if not self.is_over:
            error = BrokerUnreachable(f"the broker did not answer in time while {self.doing}")
            error.is_silence = True
            self._connection.silent_channels += 1
            self._finish(None, error)

    @property
    def doing(self) -> str:
        """What it asks of the broker now, in words."""
        return self._ask.doing if self._ask is not None else "opening a channel"

    def _finish(self, result: Any, error: Exception | None) -> None:
        if self.is_over:
            return
        self.is_over = True
        self._loop.remove_timeout(self._timer)
        self._connection.when_gone.discard(self._on_gone)
        self._script.close()
        if self._channel is not None and self._channel.is_open and self._connection.is_open:
            self._channel.close()
        self._on_done(result, error)
