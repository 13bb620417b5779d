"""Where everything is that was accepted: what the broker holds, and what processes have counted. See `docs/explanation/account.md`."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from amqp_routing import Topology
from amqp_tasks.app._entries import read_stream
from amqp_tasks.errors import BrokerOperationError, TopologyMismatch
from amqp_tasks.message import (
    ACCOUNT_NAME,
    COUNTED,
    DELAYED_NAME,
    ENDS,
    account_queue,
    dead_letter_queue_name,
    printable,
    read_counts,
)
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport._delay import STRAY_NAME, is_of_wheel

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.message import CountReport, JournalEntry
    from amqp_tasks.transport import Transport
    from amqp_tasks.transport.management import Load

__all__ = ("Account", "account_of", "declare_account")

logger = logging.getLogger(__name__)

_OWN_PREFIX = "amqp_tasks."
"""Of queues that hold no tasks, such as replies, and of the timer wheel."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """Messages of tasks, by place.

    Attributes:
        waiting: in each task queue, ready.
        dead: in each dead-letter queue.
        held: by workers, unacknowledged, for each of both; None: not known.
        delayed: on their way through the timer wheel; None: not known.
        stray: due, when their destination was gone; None: not known.
        uncounted: in each other queue that holds any and is none of ours: maybe tasks, maybe not; None: not known.
        counts: what processes have told of, by `amqp_tasks.message.COUNTED`; None: the broker has no account.
        unfinished: processes that have not said their last word: they live, or have died with what they had not told yet.
        is_whole: no report has left the account for its size.
    """

    waiting: Mapping[str, int]
    dead: Mapping[str, int]
    held: Mapping[str, int] | None
    delayed: int | None
    stray: int | None
    uncounted: Mapping[str, int] | None
    counts: Mapping[str, int] | None
    unfinished: int
    is_whole: bool

    @property
    def total(self) -> int | None:
        """How many have not ended; None: not all places are known."""
        if self.held is None or self.delayed is None or self.stray is None:
            return None
        counts = (*self.waiting.values(), *self.dead.values(), *self.held.values())
        return sum(counts) + self.delayed + self.stray

    @property
    def difference(self) -> int | None:
        """Accepted less ended less not ended: what is missing; None: not all of that is known."""
        if self.total is None or self.counts is None or not self.is_whole:
            return None
        return self.counts["accepted"] - sum(self.counts[end] for end in ENDS) - self.total


def account_of(app: App, management_url: str | None) -> Account:
    """Count the app's messages. Places are asked one after the other: of what moves meanwhile one may be counted twice or not at all.
    What was counted holds for the virtual host, and is up to a minute old where tasks move.

    Args:
        app: whose queues.
        management_url: of the API that tells what workers hold, and which queues there are; None: the timer wheel's, and those that
            only tasks and calls name, are not looked at.

    Raises:
        BrokerConnectionError, BrokerOperationError: the broker, or the management API, does not tell.
    """
    loads = None if management_url is None else _loads(app, management_url)
    names = _task_queues(app, loads or {})
    dead_names = {dead for name in names if (dead := dead_letter_queue_name(name)) in names}
    read = _Reports()
    first_offset = read_stream(app.transport, ACCOUNT_NAME, read.learn)
    return Account(
        waiting={name: _ready(app, name) for name in sorted(names - dead_names)},
        dead={name: _ready(app, name) for name in sorted(dead_names)},
        held=None if loads is None else {name: _unacknowledged(loads, name) for name in sorted(names)},
        delayed=None if loads is None else _delayed(app, loads),
        stray=None if loads is None else _ready(app, STRAY_NAME) + _unacknowledged(loads, STRAY_NAME),
        uncounted=None if loads is None else _uncounted(loads, names),
        counts=None if first_offset is None else read.sums,
        unfinished=read.unfinished,
        is_whole=not first_offset,
    )


def _loads(app: App, management_url: str) -> dict[str, Load]:
    from amqp_tasks.transport.management import Management  # with its HTTP client, which workers do not need

    return Management(management_url, vhost=app.settings.broker.url[0].vhost).loads()


def _task_queues(app: App, listed: Collection[str]) -> frozenset[str]:
    """The app's queues, and of those listed the ones with dead letters beside them, as a task, a call or a router function may name any."""
    pairs = ((name, dead_letter_queue_name(name)) for name in listed)
    return frozenset(app.topology.queue_names).union(*(pair for pair in pairs if pair[1] in listed))


def _unacknowledged(loads: Mapping[str, Load], name: str) -> int:
    return loads[name].unacknowledged if name in loads else 0


def _delayed(app: App, loads: Mapping[str, Load]) -> int:
    """The index of what is delayed is named like a queue of the wheel, but its entries are notes."""
    wheel = {name for name in loads if is_of_wheel(name)} - {STRAY_NAME, DELAYED_NAME}
    return sum(_ready(app, name) + _unacknowledged(loads, name) for name in wheel)


def _uncounted(loads: Mapping[str, Load], counted: Collection[str]) -> dict[str, int]:
    others = (name for name in sorted(loads) if name not in counted and not name.startswith(_OWN_PREFIX))
    return {name: loads[name].messages for name in others if loads[name].messages}


class _Reports:
    """The newest report of each process."""

    def __init__(self) -> None:
        self._newest: dict[str, CountReport] = {}

    def learn(self, entry: JournalEntry) -> None:
        """Take an entry of the account; a report that was sent again may come behind a newer one."""
        report = read_counts(entry)
        if report is not None:
            known = self._newest.get(report.of)
            if known is None or known.number < report.number:
                self._newest[report.of] = report

    @property
    def sums(self) -> Mapping[str, int]:
        """Over all processes."""
        return {kind: sum(each.counts.get(kind, 0) for each in self._newest.values()) for kind in COUNTED}

    @property
    def unfinished(self) -> int:
        """See `Account.unfinished`."""
        return sum(not each.is_last for each in self._newest.values())


def declare_account(transport: Transport, mode: TopologyMode) -> None:
    """See to it that the stream of the account is there, where it may be declared. Without it nothing is counted."""
    if mode is not TopologyMode.DECLARE:
        return
    try:
        transport.ensure_topology(Topology(queues=(account_queue(),)), mode=mode)
    except (TopologyMismatch, BrokerOperationError) as exc:
        logger.warning(
            "what ends is not counted, as the account %r cannot be had: %s", ACCOUNT_NAME, printable(f"{exc}", 512),
            extra={"action": "account"},
        )  # fmt: skip


def _ready(app: App, queue_name: str) -> int:
    status = app.transport.queue_status(queue_name)
    return status.messages if status is not None else 0
