"""Who runs the loop: the I/O thread, or a caller who waits for it anyway.

There is one baton. Whoever holds it runs the loop, and nobody else touches loop, connections or channels:

    THREAD  the I/O thread holds it. So it is at the start, at the end, while several callers wait, while something is
            consumed that must not be handled on callers' threads, and when nobody has called for `PATIENCE` seconds.
    LED     a caller who waits holds it, until what he waits for has come, or his time is up.
    FREE    nobody does, between two calls; the I/O thread stands by and takes it when nobody leads for `PATIENCE`.

`docs/explanation/connections.md`, "Who runs the loop", has the rule for each failure.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from amqp_tasks.transport.rabbitmq._loop import DoorLoop, Phase, call, guarded
from amqp_tasks.transport.rabbitmq._reports import THREAD_NAME, doing_io, quieten_pika
from amqp_tasks.transport.rabbitmq._signals import HeldSignals, is_main_thread

__all__ = ("IOThread",)

LOGGER = logging.getLogger(__name__)

PATIENCE = 0.005
"""Seconds after which what nobody waits for (heartbeats, results to come) gets the I/O thread's attention again."""


class IOThread:
    """Owns the loop, its thread and the baton.

    Life: `start` starts the thread; other threads `put` work through the loop's door, or `call` and wait; `stop` ends the
    loop after the turn it is in. The thread is not a daemon: one that dies in the middle of a write at the interpreter's
    end would lose what it was writing, so `_transport` closes every transport before the interpreter waits for threads.
    """

    def __init__(self) -> None:
        self.loop = DoorLoop(self._recall)
        self.may_be_led = (
            True  # cleared by any thread, before a consumer starts whose handlers stay on our thread
        )
        self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=False)
        self._on_end: Callable[[bool], None] | None = None
        self._baton = threading.Lock()
        self._baton.acquire()  # the thread's, until it lets go
        self._leader = 0  # ident of the caller who leads; written by him
        self._leads = 0  # how often somebody has led; written by whoever leads
        self._failure: BaseException | None = (
            None  # what broke a turn of his; written by him, raised by the thread
        )
        self._signals = HeldSignals(lambda: self.loop.is_turning)
        self._waiting: set[threading.Lock] = set()  # gates of those who wait and do not lead
        self._is_wanted = False  # one of them would rather lead the next time
        self._recalled = threading.Lock()  # released to call the standing-by thread
        self._recalled.acquire()
        self._stays_away = False  # the thread sleeps until the leader calls it
        self._chores: deque[Callable[[], None]] = deque()  # users' code that leaders leave to the thread

    # --- any thread ---

    def start(self, on_end: Callable[[bool], None]) -> None:
        """Start the thread; `on_end(by_error)` is called on it when the loop has ended."""
        quieten_pika()
        self._on_end = on_end
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """Whether the caller is what the loop runs on, and must not wait for it."""
        me = threading.get_ident()
        return me == self._thread.ident or (me == self._leader and self.loop.is_turning)

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def stop(self, timeout: float) -> None:
        """End the loop and wait for the thread up to `timeout` seconds."""
        self.loop.put(lambda _none: self.loop.stop())
        if threading.get_ident() != self._thread.ident:
            self._thread.join(max(0.0, timeout))

    def abandon(self) -> None:
        """In a forked child: the loop is the parent's, and so is whoever led it there."""
        self.loop.abandon()
        doing_io.clear()
        if self._leader != threading.get_ident():
            self._signals.forget()

    def call_back(self, work: Callable[[], None]) -> None:
        """See `Transport.call_back`."""
        if threading.get_ident() != self._leader:
            work()
            return
        self._chores.append(work)
        self._recall()

    def post(self, work: Callable[[Any], None], argument: Any) -> None:
        """As the loop's `put`; but if nobody runs the loop, the caller does it himself, without waiting."""
        if not self._lead(work, argument, None, 0.0):
            self.loop.put(work, argument)

    def call(self, work: Callable[[Any], None], argument: Any, gate: threading.Lock, timeout: float) -> bool:
        """As the loop's `put`, then `wait`."""
        deadline = time.monotonic() + timeout
        if not self._lead(work, argument, gate, deadline):
            self.loop.put(work, argument)
        return self._wait(gate, deadline)

    def wait(self, gate: threading.Lock, timeout: float) -> bool:
        """Wait until something in the loop releases `gate`, a held lock; False when `timeout` seconds passed first."""
        return self._wait(gate, time.monotonic() + timeout)

    def _wait(self, gate: threading.Lock, deadline: float) -> bool:
        while gate.locked() and self._lead(None, None, gate, deadline):
            if time.monotonic() >= deadline:
                break
        if gate.acquire(blocking=False):
            return True
        if self.loop.is_abandoned:
            return False  # a signal handler has forked: what is waited for is the parent's
        self._waiting.add(gate)
        try:
            self._is_wanted = True
            # Whoever lets go of the baton from now on sees that somebody waits; if he did just before, it is ours.
            if not self._baton.locked():
                self._recall()
            return gate.acquire(timeout=min(max(0.0, deadline - time.monotonic()), threading.TIMEOUT_MAX))
        finally:
            self._waiting.discard(gate)

    # --- leading ---

    def _lead(
        self, work: Callable[[Any], None] | None, argument: Any, gate: threading.Lock | None, deadline: float
    ) -> bool:
        """Run the loop on this thread until `gate` is released; False: not possible, and nothing was done."""
        if self._leader == threading.get_ident() and not self.loop.is_turning:
            self._lead_within(work, argument, gate, deadline)
            return True
        if self._baton.locked() or not self.may_be_led:
            return False
        if not is_main_thread():
            return self._lead_holding(work, argument, gate, deadline, None)
        try:
            self._signals.hold()
            return self._lead_holding(work, argument, gate, deadline, self._signals)
        finally:
            self._signals.let_go()

    def _lead_holding(
        self,
        work: Callable[[Any], None] | None,
        argument: Any,
        gate: threading.Lock | None,
        deadline: float,
        signals: HeldSignals | None,
    ) -> bool:
        if not self._baton.acquire(blocking=False):
            return False
        loop, me = self.loop, threading.get_ident()
        if self._failure is not None or loop.is_stopping:
            self._let_go()
            return False
        loop.phase = Phase.AWAKE
        self._leader = me
        doing_io.add(me)
        try:
            if work is not None:
                loop.put(work, argument)
            loop.finish_turn()
            while self._goes_on(gate, deadline):
                if signals is not None and signals.noted:
                    signals.handle_noted()
                self._leads += 1
                loop.turn(deadline)
        except BaseException as exc:
            if loop.is_turning:
                self._failure = (
                    exc  # nobody knows what was left undone: the thread ends the loop and tells all
                )
            elif not loop.is_abandoned:
                raise
            if not isinstance(exc, Exception):
                raise
        finally:
            loop.is_turning = False
            self._leader = 0
            doing_io.discard(me)
            self._let_go()
        return True

    def _goes_on(self, gate: threading.Lock | None, deadline: float) -> bool:
        return (
            gate is not None
            and gate.locked()
            and self.may_be_led
            and not self.loop.is_stopping
            and time.monotonic() < deadline
        )

    def _lead_within(
        self, work: Callable[[Any], None] | None, argument: Any, gate: threading.Lock | None, deadline: float
    ) -> None:
        """A signal handler that ran while this thread polled calls in its turn."""
        loop = self.loop
        loop.phase = Phase.AWAKE
        try:
            if work is not None:
                loop.put(work, argument)
            loop.finish_turn()
            while self._goes_on(gate, deadline):
                loop.turn(deadline)
        finally:
            # The poll that the handler has interrupted goes on, with a limit from before: let it look anew.
            loop.phase = Phase.POLLING
            loop.wake()

    def _let_go(self) -> None:
        """Give the baton back, and call the thread if anything needs it now."""
        loop = self.loop
        loop.phase = Phase.FREE
        self._baton.release()
        # After the release: whoever found the baton taken has put his work or his gate where it is seen here.
        if (
            self._stays_away
            or loop.has_work
            or self._failure is not None
            or loop.is_stopping
            or not self.may_be_led
            or self._is_anybody_waiting
        ):
            self._recall()

    @property
    def _is_anybody_waiting(self) -> bool:
        return any(gate.locked() for gate in tuple(self._waiting))

    def _recall(self) -> None:
        """Call the thread that stands by; idempotent."""
        with contextlib.suppress(RuntimeError):
            self._recalled.release()

    # --- the thread ---

    def _run(self) -> None:
        by_error = True
        try:
            self.loop.activate_poller()
            while self._serve():
                self._stand_by()
            by_error = False
        except BaseException:  # SystemExit too: the thread must not end without a word to those who wait
            LOGGER.critical("the I/O loop ended by an error", exc_info=True, extra={"action": "io_death"})
        # The baton stays taken: nobody leads a loop that has ended.
        if self._on_end is not None:
            guarded(self._on_end, by_error)
        self.loop.shut()
        self._do_chores()
        with contextlib.suppress(Exception):
            self.loop.close()

    def _serve(self) -> bool:
        """Run the loop until callers can (True, and the baton is free) or it ends."""
        loop = self.loop
        while not loop.is_stopping:
            if self._failure is not None:
                raise self._failure
            loop.turn()
            self._do_chores()
            if self._is_wanted and self.may_be_led and not loop.is_stopping and not self._is_anybody_waiting:
                self._is_wanted = False
                self._let_go()
                return True
        return False

    def _stand_by(self) -> None:
        """Come back with the baton: when called for, or when nobody has led for a while."""
        while True:
            leads = self._leads
            is_called = self._recalled.acquire(timeout=PATIENCE)
            self._do_chores()
            if not is_called and self._leads != leads:
                continue
            if self._baton.acquire(blocking=False):
                self.loop.phase = Phase.AWAKE
                return
            if not is_called:
                self._stay_away()

    def _stay_away(self) -> None:
        """Somebody leads, and goes on doing so: sleep until he has ended."""
        self._stays_away = True
        # Looked at after the flag is set: either he sees the flag when he ends, or we see that he has.
        if self._baton.locked():
            self._recalled.acquire()
            self._recall()  # for the caller of this method
        self._stays_away = False

    def _do_chores(self) -> None:
        while self._chores:
            work = self._chores.popleft()
            guarded(call, work)
            if self._leader:
                self.loop.wake()  # it may be what he waits for
