"""A worker for tests of the calling side: it runs tasks on its transport's I/O thread and sends the results."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from amqp_tasks.app import App
from amqp_tasks.app._execution import execute, request_from
from amqp_tasks.errors import UnroutableError
from amqp_tasks.message import ResultRecord, read_envelope, read_payload
from amqp_tasks.transport import (
    Consumer,
    ConsumerEvent,
    ConsumerOptions,
    ConsumerState,
    Delivery,
    Settlement,
    TopologyMode,
)

__all__ = ("PlainWorker",)


class PlainWorker:
    """Consumes for the tasks of an app, with connections of its own. While `is_holding`, deliveries are only kept."""

    def __init__(self, app: App, url: str, *queue_names: str) -> None:
        self.tasks = app.tasks
        self.app = App("worker", broker=url)
        self.held: list[Delivery] = []
        self.is_holding = False
        self.started = threading.Event()
        self._queue_names = queue_names or ("default",)
        self._consumer: Consumer | None = None

    def start(self) -> PlainWorker:
        topology = self.app.topology_for(self._queue_names)
        self.app.transport.ensure_topology(topology, mode=TopologyMode.DECLARE)
        self._consumer = self.app.transport.consume(
            list(self._queue_names),
            ConsumerOptions(prefetch=500),
            on_deliveries=self._take,
            on_event=self._note,
        )
        assert self.started.wait(10)
        return self

    def _note(self, event: ConsumerEvent) -> None:
        if event.state is ConsumerState.CONSUMING:
            self.started.set()

    def _take(self, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            if self.is_holding:
                self.held.append(delivery)
            else:
                self.run(delivery)

    def run(self, delivery: Delivery) -> None:
        envelope = read_envelope(delivery.properties)
        payload = read_payload(envelope, delivery.body, accept=("json",))
        task = self.tasks[envelope.task]
        request = request_from(envelope, delivery_info={"queue": delivery.queue_name}, hostname="plain@test")
        outcome = execute(task, request, payload)
        record = ResultRecord(
            task_id=envelope.id,
            status=outcome.state,
            result=outcome.exception if outcome.exception is not None else outcome.value,
            traceback=outcome.traceback_text,
            children=list(outcome.children),
            name=envelope.task,
        )

        def stored(error: Exception | None) -> None:
            if (error is None or isinstance(error, UnroutableError)) and self._consumer is not None:
                self._consumer.settle(delivery, Settlement.ACK)

        self.app.backend.store_nowait(
            record, reply_to=envelope.reply_to, correlation_id=envelope.correlation_id, on_stored=stored
        )

    def stop(self) -> None:
        self.app.close()
