"""A small AMQP 0-9-1 broker inside the test that misbehaves over one method when told to.

It keeps queues in memory, confirms, delivers, returns and requeues, as far as our client can tell; it knows no
priorities, no dead-lettering and no time to live, and an exchange hands a message to the first queue bound to it.
Heartbeats go on whatever the fault is: a method that is never answered must be noticed by other means.
"""

from __future__ import annotations

import asyncio
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from pika import frame as frames
from pika import spec

from support.observing import tell_message
from support.scripted_queues import Channel, Consumer, Message, Queue, Queues

__all__ = (
    "HTTP",
    "NOT_RUNNING",
    "PROTOCOL_HEADER",
    "UNKNOWN_METHOD",
    "WRONG_END",
    "Fault",
    "ScriptedBroker",
    "confirm_of",
)

LATE_BY = 0.2
PROTOCOL_HEADER = "ProtocolHeader"
WRONG_END = struct.pack(">BHL", 1, 0, 4) + b"\x00\x0a\x00\x1e" + b"\x00"
UNKNOWN_METHOD = struct.pack(">BHL", 1, 1, 4) + b"\x7f\x7f\x7f\x7f" + b"\xce"
NOT_RUNNING = (
    404,
    "NOT_FOUND - home node 'rabbit@a' of durable queue 'default' in vhost '/' is down or inaccessible",
)
"""What RabbitMQ answers in the second after its start, of a queue that is about to run."""
HTTP = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"


def confirm_of(tag: int, *, multiple: bool) -> bytes:
    """The frame of a confirm, whatever was published."""
    return bytes(frames.Method(1, spec.Basic.Ack(tag, multiple)).marshal())


class Fault(StrEnum):
    """What is done in place of an answer."""

    LATE = "late"
    NEVER = "never"
    CLOSE_CONNECTION = "close-connection"
    CLOSE_CHANNEL = "close-channel"
    GARBAGE = "garbage"
    RESET = "reset"


@dataclass(slots=True)
class _Trap:
    method: str
    fault: Fault
    times: float
    garbage: bytes
    reply: tuple[int, str]


class ScriptedBroker:
    """Serves on a port of its own until closed; one thread owns everything but the traps. Use it in a `with`.

    Args:
        version: what it says it is.
        refused_argument: of `basic.consume`, which it then closes the channel over.
        channel_max: channels of a connection, as `connection.tune` says.
        frame_max: bytes of a frame, likewise.
        heartbeat: seconds, likewise.
    """

    def __init__(
        self,
        *,
        version: str = "4.0.5",
        refused_argument: str | None = None,
        channel_max: int = 2047,
        frame_max: int = 131072,
        heartbeat: int = 60,
    ) -> None:
        self.version, self.refused_argument = version, refused_argument
        self.tune = spec.Connection.Tune(channel_max, frame_max, heartbeat)
        self.consumes: list[tuple[str, dict[str, Any]]] = []
        """Queue and arguments of each `basic.consume`."""
        self.declares: list[tuple[str, dict[str, Any]]] = []
        """Queue and arguments of each `queue.declare` that is not passive."""
        self.seen: Counter[str] = Counter()
        """How often each method came."""
        self._traps: list[_Trap] = []
        self._lock = threading.Lock()
        self.queues = Queues()
        self.counts_consumers = True
        """Whether it tells how many consumers a queue has; else none."""
        self._loop = asyncio.new_event_loop()
        self._over = self._loop.create_future()
        self._sessions: set[_Session] = set()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started,), name="scripted-broker")
        self._thread.start()
        assert started.wait(10)

    # -- what tests use

    @property
    def url(self) -> str:
        """Its address for a client."""
        return f"amqp://guest:guest@127.0.0.1:{self._port}//"

    def misbehave(
        self,
        method: str,
        fault: Fault,
        *,
        times: float = float("inf"),
        garbage: bytes = WRONG_END,
        reply: tuple[int, str] = (406, "PRECONDITION_FAILED"),
    ) -> None:
        """From now on do that in place of answering `method` (its name in the specification), so many times; `reply`: of
        `CLOSE_CHANNEL`."""
        with self._lock:
            self._traps = [_Trap(method, fault, times, garbage, reply)]

    def behave(self) -> None:
        """Answer everything from now on."""
        with self._lock:
            self._traps = []

    def put(self, queue: str, body: bytes | None = None, headers: dict[str, Any] | None = None) -> None:
        """Make a queue, and put a JSON message into it if there is a body; before any client comes."""
        made = self.queues.queue(queue, make=True)
        assert made is not None
        if body is not None:
            properties = spec.BasicProperties(
                content_type="application/json", content_encoding="utf-8", headers=headers
            )
            tell_message("put", headers)
            made.messages.append(Message("", queue, properties, body=body))

    def take_back(self, queue: str) -> None:
        """What RabbitMQ 4.3 does when a delivery is not acked in time: requeue it, and cancel its consumer."""
        self._loop.call_soon_threadsafe(self._take_back, queue)

    def lose_consumers(self, queue: str) -> None:
        """Deliver nothing more to the consumers that a queue has, and tell nobody."""
        self._loop.call_soon_threadsafe(self._lose_consumers, queue)

    def _lose_consumers(self, name: str) -> None:
        queue = self.queues.queue(name)
        assert queue is not None
        queue.consumers.clear()

    def drop_queue(self, queue: str) -> None:
        """Have no such queue any more, and tell nobody."""
        self._loop.call_soon_threadsafe(self.queues.drop_queue, queue)

    def close_connections(self, code: int, text: str) -> None:
        """Close all connections as a broker does that has found a fault, or is told to."""
        self._loop.call_soon_threadsafe(self._close_connections, code, text)

    def _close_connections(self, code: int, text: str) -> None:
        for session in self._sessions:
            session.close(code, text)

    def reset_connections(self) -> None:
        """Cut all connections without a word."""
        self._loop.call_soon_threadsafe(self._reset_connections)

    def _reset_connections(self) -> None:
        for session in self._sessions:
            session.reset()

    def _take_back(self, name: str) -> None:
        for session in self._sessions:
            session.take_back(name)
        self.queues.pump()

    def unsettled(self, queue: str) -> int:
        """How many messages of a queue are ready or unacked."""
        found = self.queues.queue(queue)
        held = sum(session.unacked(queue) for session in tuple(self._sessions))
        return held + (len(found.messages) if found is not None else 0)

    def close(self) -> None:
        """End all connections and the thread; idempotent."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._over.set_result, None)
            self._thread.join(10)
            for message in self.queues.messages():
                tell_message("taken", message.properties.headers)
        assert not self._thread.is_alive(), "the scripted broker's thread did not end"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # -- the thread

    def _run(self, started: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(started))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())  # a turn in which sockets are closed
        self._loop.close()

    async def _serve(self, started: threading.Event) -> None:
        server = await asyncio.start_server(self._on_connection, "127.0.0.1", 0)
        self._port: int = server.sockets[0].getsockname()[1]
        started.set()
        await self._over
        # Not closed yet, and what is under way not cancelled: a connection that was just accepted would leave its socket open.
        self._loop.remove_reader(server.sockets[0].fileno())
        for session in tuple(self._sessions):
            session.end()
        while others := asyncio.all_tasks() - {asyncio.current_task()}:
            await asyncio.wait(others)
        server.close()

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        session = _Session(self, reader, writer)
        self._sessions.add(session)
        try:
            if not self._over.done():
                await session.run()
        except (asyncio.IncompleteReadError, OSError):
            pass  # the client is gone, or we are to end
        finally:
            session.end()
            self._sessions.discard(session)

    async def pause(self) -> None:
        """As long as a late answer is late; shorter at the end."""
        await asyncio.wait([self._over], timeout=LATE_BY)

    def take_trap(self, method: str) -> _Trap | None:
        """The trap that this method steps into."""
        with self._lock:
            self.seen[method] += 1
            for trap in self._traps:
                if trap.method == method and trap.times > 0:
                    trap.times -= 1
                    return trap
        return None


Handler = Callable[["_Session", Channel, Any], Iterator[Any]]


class _Session:
    """One connection; see `ScriptedBroker`."""

    def __init__(
        self, broker: ScriptedBroker, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self._broker, self._reader, self._writer = broker, reader, writer
        self._queues = broker.queues
        self._channels: dict[int, Channel] = {}
        self._is_closing = False
        self._heart = asyncio.get_running_loop().call_later(0.5, self._beat)

    async def run(self) -> None:
        """Serve until the client is gone."""
        await self._reader.readexactly(8)
        start = spec.Connection.Start(
            0, 9, {"product": "RabbitMQ", "version": self._broker.version}, "PLAIN", "en_US"
        )
        await self._answer_or_not(PROTOCOL_HEADER, 0, lambda: self._send(0, start))
        while not self._writer.is_closing():
            head = await self._reader.readexactly(7)
            rest = await self._reader.readexactly(struct.unpack(">BHL", head)[2] + 1)
            await self._take(frames.decode_frame(head + rest)[1])

    def end(self) -> None:
        """The connection is gone."""
        self._heart.cancel()
        for channel in self._channels.values():
            self._queues.forget(channel)
        self._writer.transport.abort()

    def _beat(self) -> None:
        self._writer.write(frames.Heartbeat().marshal())
        self._heart = asyncio.get_running_loop().call_later(0.5, self._beat)

    def _send(self, number: int, method: Any) -> None:
        self._writer.write(frames.Method(number, method).marshal())

    def _send_content(self, number: int, method: Any, message: Message) -> None:
        self._send(number, method)
        self._writer.write(frames.Header(number, len(message.body), message.properties).marshal())
        if message.body:
            self._writer.write(frames.Body(number, message.body).marshal())

    # -- frames

    async def _take(self, frame: Any) -> None:
        channel = self._channels.get(frame.channel_number)
        if isinstance(frame, frames.Method):
            await self._take_method(frame.channel_number, frame.method)
        elif channel is not None and channel.incoming is not None and not channel.is_closing:
            if isinstance(frame, frames.Header):
                channel.incoming.size, channel.incoming.properties = frame.body_size, frame.properties
            else:
                channel.incoming.body += frame.fragment
            if len(channel.incoming.body) == channel.incoming.size:
                message, channel.incoming = channel.incoming, None
                await self._answer_or_not(
                    spec.Basic.Publish.NAME, channel.number, lambda: self._published(channel, message)
                )

    async def _take_method(self, number: int, method: Any) -> None:
        channel = self._channels.get(number)
        if isinstance(method, spec.Connection.CloseOk):
            self._writer.close()
        elif isinstance(method, spec.Channel.CloseOk):
            self._channels.pop(number, None)
        elif self._is_closing or (channel is not None and channel.is_closing):
            return
        elif isinstance(method, spec.Basic.Publish) and channel is not None:
            channel.incoming = Message(
                method.exchange, method.routing_key, spec.BasicProperties(), method.mandatory
            )
        else:
            await self._answer_or_not(method.NAME, number, lambda: self._act(number, method))

    async def _answer_or_not(self, name: str, number: int, answer: Callable[[], None]) -> None:
        trap = self._broker.take_trap(name)
        match trap.fault if trap is not None else None:
            case None:
                answer()
            case Fault.LATE:
                await self._broker.pause()
                answer()
            case Fault.NEVER:
                pass
            case Fault.CLOSE_CONNECTION:
                self.close(541, f"INTERNAL_ERROR - over {name}")
            case Fault.CLOSE_CHANNEL:
                assert trap is not None
                code, text = trap.reply
                self._close_channel(number, code, f"{text} - over {name}")
            case Fault.GARBAGE:
                assert trap is not None
                self._writer.write(trap.garbage)
            case Fault.RESET:
                self.reset()

    def close(self, code: int, text: str) -> None:
        """Say why, and wait for the answer."""
        self._is_closing = True
        self._send(0, spec.Connection.Close(code, text, 0, 0))

    def reset(self) -> None:
        """Say nothing."""
        self._writer.transport.abort()

    def _act(self, number: int, method: Any) -> None:
        if isinstance(method, spec.Channel.Open) and number in self._channels:
            self.close(504, "CHANNEL_ERROR - second 'channel.open' seen")
            return
        channel = self._channels.get(number) or Channel(self.deliver, number)
        if isinstance(method, spec.Channel.Open):
            self._channels[number] = channel
        for answer in _HANDLERS[type(method)](self, channel, method):
            self._send(number, answer)
        self._queues.pump()

    def _close_channel(self, number: int, code: int, text: str) -> None:
        channel = self._channels.setdefault(number, Channel(self.deliver, number))
        channel.is_closing = True
        self._queues.forget(channel)
        self._send(number, spec.Channel.Close(code, text, 0, 0))

    # -- content

    def _published(self, channel: Channel, message: Message) -> None:
        channel.published += 1
        queue = self._queues.route(message.exchange, message.routing_key)
        if queue is not None:
            queue.messages.append(message)
        elif message.mandatory:
            returned = spec.Basic.Return(312, "NO_ROUTE", message.exchange, message.routing_key)
            self._send_content(channel.number, returned, message)
        if channel.is_confirming:
            self._send(channel.number, spec.Basic.Ack(channel.published, False))
        self._queues.pump()

    def deliver(self, consumer: Consumer, queue: Queue, message: Message) -> None:
        """Hand a message to a consumer of this connection."""
        channel = consumer.channel
        channel.delivered += 1
        if not consumer.no_ack:
            channel.unacked[channel.delivered] = (consumer, queue, message)
        where = (message.redelivered, message.exchange, message.routing_key)
        method = spec.Basic.Deliver(consumer.tag, channel.delivered, *where)
        self._send_content(channel.number, method, message)

    def unacked(self, name: str) -> int:
        """How many messages of a queue it holds."""
        held = [
            each for channel in tuple(self._channels.values()) for each in tuple(channel.unacked.values())
        ]
        return sum(queue.name == name for _, queue, _ in held)

    def take_back(self, name: str) -> None:
        """See `ScriptedBroker.take_back`."""
        for channel in self._channels.values():
            for tag, (consumer, queue, message) in list(channel.unacked.items()):
                if queue.name == name:
                    del channel.unacked[tag]
                    message.redelivered = True
                    queue.messages.appendleft(message)
                    self._queues.cancel(channel, consumer.tag)
                    self._send(channel.number, spec.Basic.Cancel(consumer.tag, True))

    # -- methods

    def on_start_ok(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`connection.start-ok`: whoever it is may come in."""
        yield self._broker.tune

    def on_tune_ok(self, channel: Channel, method: Any) -> Iterator[Any]:
        """Methods without an answer."""
        return iter(())

    def on_close(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`connection.close`."""
        yield spec.Connection.CloseOk()

    def on_channel_close(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`channel.close`."""
        self._queues.forget(channel)
        self._channels.pop(channel.number, None)
        yield spec.Channel.CloseOk()

    def on_confirm_select(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`confirm.select`."""
        channel.is_confirming = True
        yield spec.Confirm.SelectOk()

    def on_qos(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`basic.qos`."""
        channel.prefetch = method.prefetch_count
        yield spec.Basic.QosOk()

    def on_queue_declare(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`queue.declare`."""
        queue = self._queues.queue(method.queue, make=not method.passive)
        if queue is None:
            self._close_channel(channel.number, 404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'")
            return
        if not method.passive:
            self._broker.declares.append((queue.name, dict(method.arguments or {})))
        consumers = len(queue.consumers) if self._broker.counts_consumers else 0
        yield spec.Queue.DeclareOk(queue.name, len(queue.messages), consumers)

    def on_exchange_declare(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`exchange.declare`."""
        if not self._queues.exchange(method.exchange, make=not method.passive):
            self._close_channel(channel.number, 404, f"NOT_FOUND - no exchange '{method.exchange}'")
            return
        yield spec.Exchange.DeclareOk()

    def on_queue_bind(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`queue.bind`."""
        self._queues.bind(method.exchange, "queue", method.queue)
        yield spec.Queue.BindOk()

    def on_exchange_bind(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`exchange.bind`."""
        self._queues.bind(method.source, "exchange", method.destination)
        yield spec.Exchange.BindOk()

    def on_purge(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`queue.purge`."""
        queue = self._queues.queue(method.queue, make=True)
        assert queue is not None
        count = len(queue.messages)
        queue.messages.clear()
        yield spec.Queue.PurgeOk(count)

    def on_delete(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`queue.delete`."""
        yield spec.Queue.DeleteOk(self._queues.drop_queue(method.queue))

    def on_consume(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`basic.consume`."""
        queue = self._queues.queue(method.queue)
        if queue is None:
            self._close_channel(channel.number, 404, f"NOT_FOUND - no queue '{method.queue}' in vhost '/'")
            return
        arguments = dict(method.arguments or {})
        self._broker.consumes.append((queue.name, arguments))
        if self._broker.refused_argument in arguments:
            text = f"PRECONDITION_FAILED - invalid arg '{self._broker.refused_argument}' for queue '{queue.name}'"
            self._close_channel(channel.number, 406, text)
            return
        queue.consumers.append(Consumer(channel, method.consumer_tag, method.no_ack, channel.prefetch))
        yield spec.Basic.ConsumeOk(method.consumer_tag)

    def on_cancel(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`basic.cancel`."""
        self._queues.cancel(channel, method.consumer_tag)
        yield spec.Basic.CancelOk(method.consumer_tag)

    def on_ack(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`basic.ack`."""
        self._queues.settle(channel, method.delivery_tag, multiple=method.multiple, requeue=False)
        return iter(())

    def on_reject(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`basic.reject`, which from 4.3 on is what a quorum queue counts."""
        _, _, message = channel.unacked[method.delivery_tag]
        message.rejects += 1
        headers = message.properties.headers or {}
        message.properties.headers = {**headers, "x-delivery-count": message.rejects}
        return self.on_nack(channel, spec.Basic.Nack(method.delivery_tag, False, method.requeue))

    def on_nack(self, channel: Channel, method: Any) -> Iterator[Any]:
        """`basic.nack`."""
        self._queues.settle(channel, method.delivery_tag, multiple=method.multiple, requeue=method.requeue)
        return iter(())


def _always(answer: Callable[[], Any]) -> Handler:
    return lambda session, channel, method: iter((answer(),))


_HANDLERS: dict[type[Any], Handler] = {
    spec.Connection.StartOk: _Session.on_start_ok,
    spec.Connection.TuneOk: _Session.on_tune_ok,
    spec.Connection.Open: _always(spec.Connection.OpenOk),
    spec.Connection.Close: _Session.on_close,
    spec.Channel.Open: _always(spec.Channel.OpenOk),
    spec.Channel.Close: _Session.on_channel_close,
    spec.Confirm.Select: _Session.on_confirm_select,
    spec.Queue.Declare: _Session.on_queue_declare,
    spec.Queue.Bind: _Session.on_queue_bind,
    spec.Queue.Purge: _Session.on_purge,
    spec.Queue.Delete: _Session.on_delete,
    spec.Exchange.Declare: _Session.on_exchange_declare,
    spec.Exchange.Bind: _Session.on_exchange_bind,
    spec.Basic.Qos: _Session.on_qos,
    spec.Basic.Consume: _Session.on_consume,
    spec.Basic.Cancel: _Session.on_cancel,
    spec.Basic.Ack: _Session.on_ack,
    spec.Basic.Nack: _Session.on_nack,
    spec.Basic.Reject: _Session.on_reject,
}
