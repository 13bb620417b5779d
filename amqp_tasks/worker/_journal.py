"""Following the journal: one reader for each node, and what is made of the entries; see `docs/explanation/journal.md`."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Protocol

from amqp_tasks.app._journal import NO_JOURNAL, JournalWriter
from amqp_tasks.errors import AmqpTasksError, MalformedMessage, TopologyMismatch
from amqp_tasks.message import JOURNAL_NAME, JournalEntry, printable, read_journal_entry, signed_for_queue
from amqp_tasks.transport import ConsumerOptions, ConsumerState, Settlement

if TYPE_CHECKING:
    from amqp_tasks.message import KeyRing
    from amqp_tasks.transport import Consumer, ConsumerEvent, Delivery, Transport
    from amqp_tasks.worker._commands import Commands

__all__ = ("MARK", "JournalFollower", "JournalState", "Register")

logger = logging.getLogger(__name__)

MARK = "mark"
READ_LIMIT = 10.0
"""Seconds that a node waits at its start until it has read the journal; and that a mark may be on its way."""
READ_AGAIN_AFTER = 30.0
"""Seconds between attempts to read a journal that could not be read, or to write a mark that could not be written."""
_PREFETCH = 100
_CLOSE_TIMEOUT = 1.0
_SLICE = 0.1
_MAX_IDS = 100_000
"""More than a journal of 20 MB holds of any but its shortest entries."""
_CLOCKS = 86_400.0
"""Seconds by which the clocks of senders may be wrong."""
_MAX_REFUSED = 100
"""Names are made up as easily as entries."""
_MAX_SENDER = 255
"""Characters that are remembered and told of a sender whose entries are refused."""


class Register(Protocol):
    """What is known of one subject of the journal: some kinds of entries, and what they add up to.

    Owner thread only, but for what the class says itself.
    """

    @property
    def kinds(self) -> Collection[str]:
        """Those that it understands."""
        ...

    @property
    def is_for_processes(self) -> bool:
        """Whether worker processes need to know as well; else it is the supervisor's alone."""
        ...

    def apply(self, entry: JournalEntry) -> None:
        """Take an entry of one of the kinds into account. Being told twice must do no harm.

        Raises:
            MalformedMessage: its facts are not what the kind defines; nothing was changed.
        """

    def entries(self) -> Iterable[JournalEntry]:
        """Entries that say all that is known, for somebody who knows nothing."""
        ...


class JournalState:
    """All registers of a node or of a worker process. Owner thread only.

    Args:
        registers: see `Register`.
    """

    def __init__(self, registers: Iterable[Register]) -> None:
        self._registers = tuple(registers)
        self._by_kind = {kind: register for register in self._registers for kind in register.kinds}
        self._warned = False

    def learn(self, entries: Iterable[JournalEntry]) -> list[JournalEntry]:
        """Apply entries in order; returns those that worker processes must be told of."""
        passed_on: list[JournalEntry] = []
        for entry in entries:
            register = self._by_kind.get(entry.kind)
            if register is None:
                logger.debug("unknown journal entry %s", printable(entry.kind), extra={"action": "journal"})
                continue
            try:
                register.apply(entry)
            except Exception as exc:  # noqa: BLE001 - no entry may stop a worker
                self._warn(entry, exc)
            else:
                if register.is_for_processes:
                    passed_on.append(entry)
        return passed_on

    def for_a_new_process(self) -> list[JournalEntry]:
        """What a worker process that has just been started must be told."""
        return [
            entry for register in self._registers if register.is_for_processes for entry in register.entries()
        ]

    def _warn(self, entry: JournalEntry, error: Exception) -> None:
        level, self._warned = (logging.DEBUG if self._warned else logging.WARNING), True
        logger.log(
            level, "a journal entry from %s is passed over (further ones silently): %s",
            printable(entry.sender), printable(f"{error}", 512), extra={"action": "journal"},
        )  # fmt: skip


class JournalFollower:
    """Reads the journal from its first entry and goes on until closed.

    Life: 1. made; 2. `start` begins to consume; 3. `wait_until_read` returns once all is read that was there at the start, or not
    in time; 4. `close`. In between `on_entries` gets the entries in order, on the I/O thread: as they come, or, where it has to
    read from the first entry again, those that it has not had yet, in one piece.

    Thread safety: `start`, `wait_until_read` and `close` by any thread, one after the other.

    Args:
        transport: consumes; the caller closes it.
        writer: writes the marks.
        on_entries: takes entries; must not block.
        call_later: runs something on the owner's loop after some seconds.
        commands: say what is heeded.
    """

    def __init__(
        self,
        transport: Transport,
        writer: JournalWriter,
        *,
        on_entries: Callable[[Sequence[JournalEntry]], None],
        call_later: Callable[[float, Callable[[], None]], object],
        commands: Commands,
    ) -> None:
        self._transport, self._writer, self._on_entries = transport, writer, on_entries
        self._call_later, self._commands = call_later, commands
        self._may_declare = writer.may_declare
        self._lock = threading.Lock()
        self._consumer: Consumer | None = None
        self._is_closed = False
        # Written and read on the I/O thread.
        self._mark = ""
        self._has_read_since_mark = self._has_warned = self._has_told = False
        self._last = ""  # id of the last entry that was looked at
        self._refused = 0  # of those that were said before this node came
        self._keys = transport.keys
        self._max_age = writer.max_age + _CLOCKS
        self._forgers: set[str] = set()  # senders whose entries were not signed, and who were told of
        self._ids: OrderedDict[str, None] = OrderedDict()  # of signed entries since the first one
        # What came since it began to read again; made by the owner's loop while nothing is consumed.
        self._again: list[JournalEntry] | None = None
        self._is_settled = threading.Event()
        self._is_read = False
        self.is_connected = False
        """Whether it has its connection to the broker, as far as it has heard. Any thread."""

    def start(self) -> None:
        """Consume; what is in the way of that is told once, and the node goes on without."""
        try:
            self._writer.declare(timeout=READ_LIMIT)
        except TopologyMismatch as exc:
            # No stream: to consume it would take away what it holds.
            self._go_on_without(exc)
            return
        except AmqpTasksError as exc:
            self._go_on_without(exc)
            self._may_declare = False
        self._open()

    def wait_until_read(self, *, is_over: Callable[[], bool] = bool) -> bool:
        """Wait until the journal is read as it stood at the start, or nothing is to be waited for; at most 10 seconds.

        Args:
            is_over: ends the wait when it returns true.

        Returns:
            Whether it is read.
        """
        for _ in range(round(READ_LIMIT / _SLICE)):
            if self._is_settled.wait(_SLICE) or is_over():
                return self._is_read
        self._tell(
            f"the journal is not read yet after {READ_LIMIT:g} s: a task may run that was revoked while this node was away"
        )
        return False

    def close(self) -> None:
        """Stop reading; idempotent."""
        with self._lock:
            self._is_closed = True
            consumer, self._consumer = self._consumer, None
        if consumer is not None:
            consumer.close(timeout=_CLOSE_TIMEOUT)

    def _open(self) -> None:
        with self._lock:
            if self._is_closed:
                return
            self._consumer = self._transport.consume(
                (JOURNAL_NAME,),
                ConsumerOptions(prefetch=_PREFETCH, arguments={JOURNAL_NAME: {"x-stream-offset": "first"}}),
                on_deliveries=self._on_deliveries,
                on_event=self._on_event,
                declare=self._writer.topology if self._may_declare else None,
            )

    # On the I/O thread.

    def _on_event(self, event: ConsumerEvent) -> None:
        self.is_connected = event.state in {ConsumerState.CONSUMING, ConsumerState.CANCELLED}
        if event.state is ConsumerState.CONSUMING:
            self._write_mark()
        elif event.state is ConsumerState.CANCELLED:
            # It is looked for again and again, so that it is read when somebody makes it.
            self._go_on_without(None)
        elif event.state is ConsumerState.FAILED:
            # Whatever it was, a right that is missing or the death of the I/O thread, may be over some time.
            self._go_on_without(event.error)
            self._call_later(READ_AGAIN_AFTER, self._open_again)

    def _write_mark(self) -> None:
        mark = self._writer.entry(MARK)
        self._mark, self._has_read_since_mark = mark.id, False
        self._writer.write_nowait(mark, partial(self._mark_written, mark.id))

    def _mark_written(self, mark: str, error: AmqpTasksError | None) -> None:
        if error is None:
            self._call_later(READ_LIMIT, partial(self._check_mark, mark))
        elif mark == self._mark and not self._is_closed:
            self._catch_up()  # as nothing will say where its end is
            self._go_on_without(error)
            # Without a mark nobody would notice that we stand beyond the end of another stream.
            self._call_later(READ_AGAIN_AFTER, partial(self._mark_again, mark))

    def _on_deliveries(self, deliveries: Sequence[Delivery]) -> None:
        with self._lock:
            # The transport may call back from its own thread before `consume` has returned.
            consumer = self._consumer
        if consumer is None:
            return
        entries: list[JournalEntry] = []
        is_mark_read = False
        for delivery in deliveries:
            consumer.settle(delivery, Settlement.ACK)
            entry = self._read(delivery)
            if entry is None:
                continue
            is_mark_read = is_mark_read or entry.id == self._mark
            if entry.kind != MARK:
                entries.append(entry)
        self._has_read_since_mark = True
        if self._again is None:
            self._pass_on(entries)
        else:
            self._again += entries
        if is_mark_read:
            self._catch_up()
            self._note_read()

    def _catch_up(self) -> None:
        """Pass on what reading again has brought: in one piece, or an entry would be acted on that a later one takes back."""
        entries, self._again = self._again or [], None
        known = next((place for place, entry in enumerate(entries, 1) if entry.id == self._last), 0)
        self._pass_on(entries[known:])

    def _pass_on(self, entries: Sequence[JournalEntry]) -> None:
        if not entries:
            return
        self._last = entries[-1].id
        if heeded := [each for entry in entries if (each := self._heed(entry)) is not None]:
            self._on_entries(heeded)

    def _heed(self, entry: JournalEntry) -> JournalEntry | None:
        heeded = self._commands.heeded(entry)
        if self._is_read:
            self._commands.tell(entry, heeded)
        elif heeded is not entry:
            self._refused += 1  # each start would tell all of them again
        return heeded

    def _note_read(self) -> None:
        if self._refused and not self._is_read:
            logger.info(
                "journal: %d commands that were said before are refused by worker_accept_commands or"
                " worker_enable_remote_control", self._refused, extra={"action": "journal"},
            )  # fmt: skip
        self._is_read = True
        self._is_settled.set()

    def _read(self, delivery: Delivery) -> JournalEntry | None:
        try:
            entry = read_journal_entry(delivery.body)
        except Exception as exc:  # noqa: BLE001 - no entry may stop a worker
            level, self._has_warned = (logging.DEBUG if self._has_warned else logging.WARNING), True
            shown = exc.reason if isinstance(exc, MalformedMessage) else repr(exc)
            logger.log(
                level, "something in the journal is no entry and is passed over (further ones silently): %s",
                printable(shown, 512), extra={"action": "journal"},
            )  # fmt: skip
            return None
        return entry if self._keys is None or self._is_ours(self._keys, entry, delivery) else None

    def _is_ours(self, keys: KeyRing, entry: JournalEntry, delivery: Delivery) -> bool:
        """Whether it is signed, and not read before: what was said once may be taken back since. So it is with what is so old that
        its original may have left the stream."""
        try:
            keys.check(delivery.properties, delivery.body, signed_for_queue(JOURNAL_NAME))
        except MalformedMessage as exc:
            self._refuse(entry, str(exc))
            return False
        if entry.time < self._writer.now() - self._max_age:
            self._refuse(entry, "it is older than worker_journal_max_age")
            return False
        is_new = entry.id not in self._ids
        self._ids[entry.id] = None
        if len(self._ids) > _MAX_IDS:
            self._ids.popitem(last=False)
        return is_new

    def _refuse(self, entry: JournalEntry, why: str) -> None:
        sender = entry.sender[:_MAX_SENDER]
        is_told = sender in self._forgers or len(self._forgers) >= _MAX_REFUSED
        level = logging.DEBUG if is_told else logging.WARNING
        if not is_told:
            self._forgers.add(sender)
        logger.log(
            level, "a journal entry that says it is from %s is not heeded (further ones silently): %s",
            printable(sender), printable(why, 512), extra={"action": "journal_refused"},
        )  # fmt: skip

    def _go_on_without(self, error: Exception | None) -> None:
        reason = NO_JOURNAL if error is None else f"the journal {JOURNAL_NAME!r} cannot be used: {error}"
        self._tell(f"{reason}; revocations, pauses and rate limits do not reach this node")
        self._is_settled.set()

    def _tell(self, text: str) -> None:
        """Once: it is a state, and not news."""
        if not self._has_told:
            self._has_told = True
            logger.warning("%s", printable(text, 1024), extra={"action": "journal"})

    # On the owner's loop.

    def _check_mark(self, mark: str) -> None:
        """A mark was confirmed some time ago. When nothing has come since, we stand beyond the end of another stream."""
        if mark == self._mark and not self._has_read_since_mark and self._consumer is not None:
            self._open_again()

    def _mark_again(self, mark: str) -> None:
        if mark != self._mark or self._is_closed:
            return
        try:
            self._write_mark()
        except AmqpTasksError as exc:
            self._note_end(exc)

    def _open_again(self) -> None:
        """Read from the first entry: it may be another stream."""
        with self._lock:
            consumer, self._consumer = self._consumer, None
        if consumer is not None:
            logger.warning("the journal is read from its first entry again", extra={"action": "journal"})
            consumer.close(timeout=_CLOSE_TIMEOUT)
        self._again = []
        self._ids = OrderedDict()
        try:
            self._open()
        except AmqpTasksError as exc:
            self._note_end(exc)

    @staticmethod
    def _note_end(error: AmqpTasksError) -> None:
        """The transport is closed, as the node ends."""
        logger.debug("the journal is not read any more: %s", error, extra={"action": "journal"})
