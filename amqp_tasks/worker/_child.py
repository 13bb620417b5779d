"""What a forked worker process does, and how it talks with its supervisor."""

from __future__ import annotations

import itertools
import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from amqp_tasks.message import entry_from_data
from amqp_tasks.transport import ConsumerState
from amqp_tasks.worker._exits import exit_now
from amqp_tasks.worker._link import Link, LinkClosed, Message
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._process import ProcessReports, WorkerProcess
from amqp_tasks.worker._verdicts import Answer, Verdict

if TYPE_CHECKING:
    from amqp_tasks.app import App
    from amqp_tasks.transport import ConsumedQueues, ConsumerEvent
    from amqp_tasks.worker._options import WorkerOptions
    from amqp_tasks.worker._rates import RateLimits
    from amqp_tasks.worker._records import RecordTable

__all__ = ("LinkVerdicts", "Shared", "make_child_main")

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """Memory that all processes of a node share."""

    records: RecordTable
    rate_limits: RateLimits


class LinkVerdicts:
    """Asks the supervisor. Thread safety: any thread; answers come on the control thread."""

    def __init__(self, send: Callable[[Message], None]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, Answer] = {}

    def ask(self, task_ids: Sequence[str], on_answer: Answer) -> None:
        """See `Verdicts.ask`."""
        with self._lock:
            number = next(self._numbers)
            self._waiting[number] = on_answer
        self._send({"kind": "ask", "number": number, "keys": list(task_ids)})

    def tell_open(self, task_ids: Sequence[str]) -> None:
        """See `Verdicts.tell_open`."""
        self._send({"kind": "open", "keys": list(task_ids)})

    def tell_finished(self, task_ids: Sequence[str]) -> None:
        """See `Verdicts.tell_finished`."""
        self._send({"kind": "finished", "keys": list(task_ids)})

    def tell_refused(self, task_ids: Sequence[str]) -> None:
        """See `Verdicts.tell_refused`."""
        self._send({"kind": "refused", "keys": list(task_ids)})

    def answered(self, number: int, found: Mapping[str, Mapping[str, Any]]) -> None:
        """An answer came."""
        with self._lock:
            on_answer = self._waiting.pop(number, None)
        if on_answer is not None:
            on_answer({key: Verdict(**facts) for key, facts in found.items()})


def make_child_main(
    app: App, options: WorkerOptions, shared: Shared, prepare: Callable[[int], None]
) -> Callable[[socket.socket, Message], None]:
    """What the template is to run in each worker process.

    Args:
        app: imported and finalized.
        options: of the node.
        shared: with the supervisor and the other processes.
        prepare: sets the process's logging up; gets the number of the process.
    """

    def child_main(end: socket.socket, order: Message) -> None:
        prepare(order["index"] + 1)
        _Child(app, options, shared, Link(end), order["index"]).run()

    return child_main


class _Child:
    def __init__(self, app: App, options: WorkerOptions, shared: Shared, link: Link, index: int) -> None:
        self._link = link
        self._loop = Loop()
        self._verdicts = LinkVerdicts(self._send)
        self._records = shared.records.of_process(index)
        self._process = WorkerProcess(
            app,
            options,
            records=self._records,
            verdicts=self._verdicts,
            rate_limits=shared.rate_limits,
            reports=ProcessReports(
                event=self._on_event,
                queues=self._on_queues,
                recycling=self._on_recycling,
                ended=self._on_ended,
                ran=self._on_ran,
                broken=self._on_broken,
            ),
            loop=self._loop,
            owns_transport=True,
        )

    def run(self) -> None:
        self._loop.add_reader(self._link.socket.fileno(), self._on_link)
        self._send({"kind": "up"})
        self._process.run()

    def _send(self, message: Message) -> None:
        try:
            self._link.send(message)
        except LinkClosed:
            self._orphaned()

    def _on_link(self) -> None:
        try:
            messages = self._link.receive()
        except LinkClosed:
            self._orphaned()
            return
        for message in messages:
            if message["kind"] == "verdicts":
                self._verdicts.answered(message["number"], message["found"])
            elif message["kind"] == "journal":
                self._process.learn([entry_from_data(data) for data in message["entries"]])
            elif message["kind"] == "begin":
                self._process.begin()
            elif message["kind"] == "stop":
                self._process.stop(message["timeout"])
            elif message["kind"] == "recycle":
                self._process.recycle("the node was told to restart")
            elif message["kind"] == "cut":
                self._process.cut()

    def _on_ran(self) -> None:
        # In its slot, which is still marked: no neighbour whose outcome is on its way has closed anything.
        self._check_link(by_running=True)

    def _check_link(self, *, by_running: bool = False) -> None:
        """End when a task closed our end, as what makes itself a daemon closes all there is: no thread of ours would last."""
        try:
            # After each task, so not by what lets go of the interpreter: another thread would take it each time.
            os.get_inheritable(self._link.socket.fileno())
        except OSError:
            self._process.fail(
                "a task has closed its descriptors; close only those that it has opened",
                by_running=by_running,
            )

    def _orphaned(self) -> None:
        self._check_link()
        # Running tasks are unacked, so the broker gives them to others. A second thread may be here too: exiting is
        # the only thing that is right in all of them.
        os._exit(1)

    def _on_event(self, event: ConsumerEvent) -> None:
        message: Message = {"kind": "consumer", "state": event.state.value}
        if event.state is ConsumerState.FAILED:
            message["error"] = str(event.error)
        self._send(message)
        if event.state is ConsumerState.FAILED:
            # The supervisor sets the deadline: whom it cuts is not taken for crashed.
            self._process.stop(float("inf"))

    def _on_queues(self, queues: ConsumedQueues) -> None:
        self._send({"kind": "queues", **asdict(queues)})

    def _on_broken(self, why: str) -> None:
        exit_now(1)

    def _on_recycling(self, why: str) -> None:
        self._send({"kind": "recycling", "why": why})

    def _on_ended(self, is_clean: bool) -> None:
        if is_clean:
            # Also of a task beyond its hard limit: it was answered for.
            self._records.reset()
        else:
            logger.warning("process ends with unfinished tasks", extra={"action": "unfinished"})
            self._send({"kind": "unfinished"})
        self._process.let_clean_up()
        if not is_clean or self._process.has_ended_a_task:
            # Slots still run something; nothing waits for it any more, so nor do we.
            exit_now(0 if is_clean else 1)
