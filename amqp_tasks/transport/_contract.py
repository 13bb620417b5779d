"""The contract between everything above and the broker.

A `Transport` is one door to one broker. It owns one I/O thread; every connection it opens belongs to that
thread, and callers hand work over and wait. Two implementations: `rabbitmq` (pika) and `memory` (kombu).
`tests/conformance` is the specification in executable form; both pass it.

Life: constructing does no I/O and starts no thread. The first use connects. `close` is final. After a fork the
child's first use starts anew: inherited sockets are dropped without a byte on the wire.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import Any

from amqp_routing import Binding, Topology
from amqp_tasks.errors import BrokerOperationError, PublishError
from amqp_tasks.message import KeyRing, OutgoingMessage, Properties
from amqp_tasks.transport._rights import Right
from amqp_tasks.transport._tally import Tally

__all__ = (
    "ConsumedQueues",
    "Consumer",
    "ConsumerEvent",
    "ConsumerOptions",
    "ConsumerState",
    "Delivery",
    "QueueStatus",
    "ServerInfo",
    "Settlement",
    "TopologyMode",
    "Transport",
    "TransportStatistics",
)


class Delivery(ABC):
    """One received message. Headers are decoded when first asked for, not before.

    A delivery tag lives only on the channel that delivered it: `epoch` grows with each new channel, and settling
    a delivery of a past epoch does nothing, as the broker has already requeued it.
    """

    __slots__ = ("body", "delivery_tag", "epoch", "exchange", "queue_name", "redelivered", "routing_key")

    body: bytes
    queue_name: str
    exchange: str
    routing_key: str
    redelivered: bool
    delivery_tag: int
    epoch: int

    @property
    @abstractmethod
    def properties(self) -> Properties:
        """All properties, headers merged into `headers`.

        Raises:
            MalformedMessage: a property or header could not be decoded (reason `bad-headers`).
        """


class Settlement(Enum):
    """How a delivery ends."""

    ACK = "ack"
    REQUEUE = "requeue"
    """basic.nack(requeue=True): back to its queue. Counts towards a quorum queue's delivery limit before 4.3."""
    RETURN = "return"
    """basic.reject(requeue=True): likewise, and every version counts it; a queue with `delayed_retry_type` may let it wait."""
    DROP = "drop"
    """basic.nack(requeue=False): dead-lettered by the broker where the queue says so, else dropped."""


class ConsumerState(StrEnum):
    """What a consumer is doing, told through `on_event`."""

    CONSUMING = "consuming"
    """Every wanted queue has a consumer (again); a paused one is not wanted."""
    LOST = "lost"
    """The connection or channel is gone; the consumer reconnects by itself. Its open deliveries are stale."""
    CANCELLED = "cancelled"
    """The broker cancelled one queue's consumer (deleted, leader moved); it is consumed again when it is back."""
    FAILED = "failed"
    """Final: credentials, access or topology must be changed. `error` says which. No more events follow."""
    CLOSED = "closed"
    """By us."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerEvent:
    """A change of a consumer's state."""

    state: ConsumerState
    epoch: int
    queue_name: str | None = None
    error: Exception | None = None
    is_broken: bool = False
    """With FAILED: nobody need change anything, as the transport's own thread has ended by an error."""
    is_queue_there: bool = False
    """With CANCELLED: only the consumer was lost, not what lies in the queue, which is consumed anew."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumerOptions:
    """How to consume.

    Attributes:
        prefetch: unacked messages per queue's consumer (basic.qos, global=False); at least 1.
        no_ack: the broker forgets a message once it is written to the socket.
        arguments: consumer arguments per queue name, e.g. `{"hipri": {"x-priority": 10}}`. With `x-stream-offset`
            (`first`, `last`, `next` or a number) the queue is a stream: deliveries carry their offset in a header of that
            name, and whenever it is consumed again, after a reconnect too, it is read on after the last delivery that was
            handed out. Settling gives the broker leave to send more and nothing else. `x-consumer-timeout` is left out where
            the broker does not take it (RabbitMQ before 4.3).
        exclusive: refuse other consumers. Who asks for that has rivals, so a lost queue is told by its event, and logged as DEBUG only.
        is_brief: it consumes for a moment, again and again, as looks do: it is alone on its connection, but takes over that of a brief one before
            it, while this is kept, and leaves it to the next. A queue that is not there, or goes, is told as CANCELLED and need not be looked for again.
        streams: names of those of which the broker counts no consumers, as far as they are known.
        paused_queues: names of those that are not consumed at first, see `Consumer.pause_queues`.
        settle_delay: seconds for which settlements may be gathered while they are fewer than a quarter of the prefetch.
    """

    prefetch: int
    no_ack: bool = False
    exclusive: bool = False
    is_brief: bool = False
    arguments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Mapping[str, Any]])
    streams: Collection[str] = ()
    paused_queues: Collection[str] = ()
    settle_delay: float = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsumedQueues:
    """What a consumer has of what it wants. One that is paused by name is in neither.

    Attributes:
        consumed: the broker has confirmed their consumers, on the present channel, and has not cancelled them. What `pause`
            holds back, or a new prefetch replaces, counts as consumed.
        missing: the others.
        absent: those of the missing that the broker says it has not, or cannot give now; they are looked for again and again.
    """

    consumed: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()


class Consumer(ABC):
    """A consumer of one or several queues, on a connection of its own, kept alive until closed.

    Thread safety: every method may be called from any thread; callbacks run on the I/O thread and must not block.
    """

    @property
    @abstractmethod
    def queues(self) -> ConsumedQueues:
        """Which of its queues are consumed now; when it has failed all are missing, and none is anything when it is closed."""

    @abstractmethod
    def settle(self, delivery: Delivery, settlement: Settlement) -> None:
        """Settle one delivery, exactly once; returns at once. Acks are sent in batches, cumulative where order
        allows, within `settle_delay`. A stale delivery (past epoch) is ignored.

        Raises:
            RuntimeError: the delivery was settled before (a bug of ours, never input).
        """

    @abstractmethod
    def flush(self, *, timeout: float) -> None:
        """Return when what was settled is written to the socket, so that the end of this process takes none of it back;
        after `timeout` seconds, or when the connection is lost, at the latest. Not on the I/O thread."""

    @abstractmethod
    def set_prefetch(self, prefetch: int) -> None:
        """Change the prefetch: the queue's consumers are cancelled and consumed anew, deliveries stay valid."""

    @abstractmethod
    def pause(self) -> None:
        """Cancel the consumers but keep channel and deliveries; idempotent. Deliveries may still arrive until the
        broker has confirmed the cancel; they are handed out as usual."""

    @abstractmethod
    def resume(self) -> None:
        """Consume again after `pause`; idempotent."""

    @abstractmethod
    def pause_queues(self, queue_names: Collection[str]) -> None:
        """Consume all of its queues but these, until told otherwise by another call; deliveries stay valid. CONSUMING is told
        when that is so, also when none is left. Independent of `pause`; what is in flight may still arrive."""

    @abstractmethod
    def close(self, *, timeout: float) -> None:
        """Cancel, flush all settlements, close channel and connection. Idempotent. Ends within `timeout` seconds
        whatever the broker does."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueStatus:
    """What a passive declare tells."""

    name: str
    messages: int
    consumers: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerInfo:
    """The broker at the other end."""

    product: str
    version: tuple[int, ...]
    url: str
    """Masked."""


class TopologyMode(StrEnum):
    """What `ensure_topology` may do."""

    DECLARE = "declare"
    CHECK = "check"
    NONE = "none"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportStatistics:
    """Counters since construction."""

    published: int = 0
    confirmed: int = 0
    returned: int = 0
    nacked: int = 0
    resent: int = 0
    delivered: int = 0
    connects: int = 0
    stale_settlements: int = 0


class Transport(ABC):
    """See the module's docstring. All methods are thread-safe unless said otherwise."""

    @property
    @abstractmethod
    def tally(self) -> Tally:
        """What this process counts: itself what the broker has accepted; the worker adds how tasks end."""

    @property
    def keys(self) -> KeyRing | None:
        """By which it signs what is published, and whoever reads is to check what he got; None: nothing is signed."""
        return None

    @abstractmethod
    def open(self, *, timeout: float) -> ServerInfo:
        """Connect now (else the first use does) and tell who answered.

        Raises:
            BrokerUnreachable, BrokerAuthenticationError, BrokerAccessError: after `timeout` at the latest.
        """

    @abstractmethod
    def publish(self, message: OutgoingMessage, *, timeout: float | None = None) -> None:
        """Publish and return when the broker has confirmed it.

        One deadline (`timeout` seconds, else the setting `task_publish_timeout`) covers connect, alarms,
        reconnects and the confirm. Unconfirmed messages are sent again, unchanged, after a reconnect.

        Raises:
            NotSent: certainly not stored (`UnroutableError`, `PublishNacked`, `BrokerBlocked`, `MessageTooLarge`,
                or with the connection error as cause).
            SendUnknown: it was written, and no confirm came in time.
        """

    @abstractmethod
    def publish_many(
        self, messages: Iterable[OutgoingMessage], *, timeout: float | None = None
    ) -> Sequence[PublishError | None]:
        """Publish with a window of unconfirmed messages, wait once; one outcome per message, in order.

        Keeps the order of messages on the wire; an iterable of millions is consumed as the window moves.
        Never raises a PublishError: failures of single messages are in the outcomes.
        """

    @abstractmethod
    def publish_nowait(
        self,
        message: OutgoingMessage,
        on_outcome: Callable[[PublishError | None], None],
        *,
        timeout: float | None = None,
    ) -> None:
        """Hand over and return; `on_outcome` is called exactly once, on the I/O thread (None = confirmed)."""

    @abstractmethod
    def ensure_topology(
        self, topology: Topology, *, mode: TopologyMode, timeout: float | None = None, is_lasting: bool = True
    ) -> None:
        """Bring the broker to hold `topology`, or check that it does.

        Each queue and exchange is first declared passively; only what is missing is declared (mode DECLARE).
        Bindings are made in mode DECLARE. Idempotent. Remembers what was declared, so that a returned message to a
        declared queue leads to one re-declaration and one resend before `UnroutableError`. A queue that the broker knows and
        that does not run, as in the moment after its start, is waited for some seconds.

        Args:
            topology: exchanges, queues and bindings.
            mode: see above.
            timeout: seconds; None: the transport's own.
            is_lasting: False for queues with a name of their own that are deleted when they have done their work: they are not
                remembered, and declared without a look whether they are there.

        Raises:
            TopologyMismatch: something exists with other arguments; a line each with wanted, found and remedy.
            UnknownQueue: mode CHECK, and a queue or exchange is missing.
            BrokerOperationError: e.g. no permission to configure.
        """

    @abstractmethod
    def compare_topology(self, topology: Topology, *, timeout: float | None = None) -> tuple[str, ...]:
        """The differences between `topology` and the broker, a line each with the remedy; empty when none."""

    @abstractmethod
    def bind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """Make bindings between what is there; idempotent.

        Raises:
            BrokerOperationError: a queue or exchange is missing (404), or permission is (403).
        """

    @abstractmethod
    def unbind(self, bindings: Iterable[Binding], *, timeout: float | None = None) -> None:
        """Remove bindings; one that is not there is fine.

        Raises:
            BrokerOperationError: permission is missing.
        """

    @abstractmethod
    def queue_status(self, queue_name: str, *, timeout: float | None = None) -> QueueStatus | None:
        """Ready messages and consumers; None when the queue does not exist.

        Raises:
            QueueNotRunning: it exists, and its node is down or has not brought it up yet.
            BrokerOperationError: permission is missing (403).
        """

    @abstractmethod
    def queue_statuses(
        self, queue_names: Sequence[str], *, timeout: float | None = None
    ) -> list[QueueStatus | None]:
        """`queue_status` of each, in their order; the broker is asked for many of them at once.

        Raises:
            QueueNotRunning, BrokerOperationError: as `queue_status`, of one of them.
        """

    @abstractmethod
    def purge_queue(self, queue_name: str, *, timeout: float | None = None) -> int:
        """Remove all ready messages; returns how many.

        Raises:
            UnknownQueue: no such queue.
        """

    @abstractmethod
    def delete_queue(self, queue_name: str, *, timeout: float | None = None) -> None:
        """Delete the queue, whatever it holds; a missing one is fine."""

    @abstractmethod
    def refused_rights(
        self, rights: Iterable[Right], *, timeout: float | None = None
    ) -> Mapping[Right, BrokerOperationError]:
        """Those of `rights` that the broker does not give this user, each with what it says.

        Nothing is declared, published, bound or taken by asking. What a right is for need not exist. To read an exchange can
        be asked for together with what may be written only, as a binding needs both: where the user may write to nothing of
        `rights`, the broker's words are about that.

        Raises:
            BrokerConnectionError: it cannot be asked.
        """

    @abstractmethod
    def consume(
        self,
        queue_names: Sequence[str],
        options: ConsumerOptions,
        *,
        on_deliveries: Callable[[Sequence[Delivery]], None],
        on_event: Callable[[ConsumerEvent], None],
        declare: Topology | None = None,
    ) -> Consumer:
        """Consume on a connection of its own; returns at once, the first event tells how it went.

        `on_deliveries` gets all messages of one socket read at once. After every reconnect the queues of
        `declare` are declared again if they are gone, and each queue in `queue_names` is consumed again.
        """

    @abstractmethod
    def statistics(self) -> TransportStatistics:
        """Counters."""

    @abstractmethod
    def close(self, *, timeout: float = 5.0) -> None:
        """Wait for outstanding confirms up to `timeout`, then close consumers, connections and the I/O thread.
        Idempotent. Publishes not confirmed by then end with `SendUnknown` or `NotSent`."""
