"""The consumers of one channel: qos and consume, one queue after the other, and cancel. I/O thread only."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

from pika import spec

from amqp_tasks.transport._contract import ConsumerOptions
from amqp_tasks.transport.rabbitmq._fastwire import ChannelSink
from amqp_tasks.transport.rabbitmq._patience import Patience

__all__ = ("Subscriptions",)

_tags = itertools.count(1)


class Subscriptions:
    """Made with its channel and thrown away with it: an answer for a channel that is gone finds nobody.

    Args:
        channel: pika's.
        sink: gets the deliveries, and must know their queues.
        options: how to consume.
        arguments: what to consume a queue with.
        patience: with the answers.
        is_wanted: whether to go on with the next queue.
        on_consuming: one queue is consumed.

    Attributes:
        asked_for: the queue whose consume is not answered yet.
    """

    def __init__(
        self,
        channel: Any,
        sink: ChannelSink,
        options: ConsumerOptions,
        arguments: Callable[[str], dict[str, Any] | None],
        patience: Patience,
        *,
        is_wanted: Callable[[], bool],
        on_consuming: Callable[[str], None],
    ) -> None:
        self._channel, self._sink, self._options, self._patience = channel, sink, options, patience
        self._arguments = arguments
        self._is_wanted, self._on_consuming = is_wanted, on_consuming
        self._tags: dict[str, str] = {}  # consumer tag → queue name
        self.asked_for: str | None = None

    @property
    def queue_names(self) -> list[str]:
        """What is consumed, or was just asked for."""
        return list(self._tags.values())

    @property
    def tags(self) -> dict[str, str]:
        """The consumer tag of each of them."""
        return {name: tag for tag, name in self._tags.items()}

    def consume(self, names: Sequence[str], prefetch: int, then: Callable[[], None]) -> None:
        """Consume these queues; `then` comes when all answered, or none is wanted any more."""
        if not names or not self._is_wanted():
            then()
            return
        self._channel.basic_qos(
            prefetch_count=prefetch,
            global_qos=False,
            callback=partial(self._on_qos, list(names), then),
        )
        self._patience.expect("basic.qos")

    def _on_qos(self, names: list[str], then: Callable[[], None], _frame: Any) -> None:
        self._consume_next(names, then)

    def _consume_next(self, names: list[str], then: Callable[[], None]) -> None:
        if not self._channel.is_open:
            return
        if not names or not self._is_wanted():
            self._patience.rest()
            then()
            return
        name = self.asked_for = names.pop(0)
        tag = f"amqp-tasks.{next(_tags)}"
        # Deliveries may come in the same read as consume-ok: the sink must know the tag before.
        self._sink.queue_names[tag.encode()] = name
        self._tags[tag] = name
        self._channel.basic_consume(
            name,
            _unused,
            auto_ack=self._options.no_ack,
            exclusive=self._options.exclusive,
            consumer_tag=tag,
            arguments=self._arguments(name),
            callback=partial(self._consumed, name, names, then),
        )
        self._patience.expect(f"basic.consume of queue {name!r}")

    def _consumed(self, name: str, names: list[str], then: Callable[[], None], _frame: Any) -> None:
        self.asked_for = None
        self._on_consuming(name)
        self._consume_next(names, then)

    def cancel(self, names: Collection[str], then: Callable[[], None]) -> None:
        """Cancel the consumers of these queues; deliveries stay open. `then` comes when all answered."""
        tags = [tag for tag, name in self._tags.items() if name in names]
        if not tags:
            then()
            return
        left = len(tags)

        def on_cancelled(tag: str, _frame: Any) -> None:
            nonlocal left
            self.forget(tag)
            self._channel._cleanup_consumer_ref(tag)
            left -= 1
            if not left:
                self._patience.rest()
                then()

        for tag in tags:
            # Not basic_cancel: pika drops the call, callback and all, for a consumer that it no longer knows.
            self._channel._rpc(
                spec.Basic.Cancel(consumer_tag=tag, nowait=False),
                partial(on_cancelled, tag),
                [(spec.Basic.CancelOk, {"consumer_tag": tag})],
            )
        self._patience.expect("basic.cancel")

    def forget(self, tag: str) -> str | None:
        """Nothing comes under this tag any more; returns its queue."""
        self._sink.queue_names.pop(tag.encode(), None)
        return self._tags.pop(tag, None)


def _unused(*_arguments: Any) -> None:
    """pika wants a callback; deliveries never reach it."""
