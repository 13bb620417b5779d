"""The supervisor: starts, watches, replaces and stops worker processes. Runs no task and holds no delivery.

Life: 1. made, while the process has one thread and no connection; 2. `run` forks the template, then checks the topology on a
helper thread, then has worker processes forked; 3. it serves its loop until the last of them has ended; 4. `run` returns
the exit code. See `docs/explanation/worker.md` for the states of a process and of a stop.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.worker._asks import Answers
from amqp_tasks.worker._children import ChildProcess, Restarts
from amqp_tasks.worker._claims import Claims
from amqp_tasks.worker._health import State
from amqp_tasks.worker._job import name_of
from amqp_tasks.worker._journal import JournalState
from amqp_tasks.worker._link import Link, LinkClosed, Message, journal_news
from amqp_tasks.worker._loop import Loop
from amqp_tasks.worker._news import News
from amqp_tasks.worker._patrol import Patrol
from amqp_tasks.worker._template import END_TIMEOUT, ChildMain, end_template, fork_template
from amqp_tasks.worker._verdicts import Verdict, describe_status

if TYPE_CHECKING:
    from amqp_tasks.app._journal import JournalWriter
    from amqp_tasks.message import JournalEntry
    from amqp_tasks.worker._health import Health
    from amqp_tasks.worker._journal import Register
    from amqp_tasks.worker._records import RecordTable

__all__ = ("StopState", "Supervisor", "SupervisorRules")

logger = logging.getLogger(__name__)

_REVIEW = 0.1
_DUMP = 0.1
"""Seconds for a process to print its stacks, before the next one begins."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupervisorRules:
    """How a node is run.

    Attributes:
        node: its name.
        processes: how many run.
        stop_timeout: seconds of a warm stop.
        cold_stop_timeout: seconds of a cold one, until processes are killed.
        alive_timeout: seconds in which a new process must say something.
        lost_wait: seconds in which a process that closed its link must be gone.
        hung_timeout: seconds without a sign of life after which a process that does not work is killed; None: never.
        claim_after: seconds after which other nodes are told of a run; infinite: never.
        places: rows of the table of records: one for each process and its successor.
    """

    node: str
    processes: int
    stop_timeout: float
    cold_stop_timeout: float
    alive_timeout: float
    lost_wait: float
    hung_timeout: float | None
    claim_after: float

    @property
    def places(self) -> int:
        """See the class."""
        return self.processes * 2


class StopState:
    """How far a stop has got."""

    RUNNING, WARM, COLD = range(3)


class Supervisor:
    """See the module's docstring. Thread safety: `stop` and `is_consuming` from any thread.

    Args:
        rules: see `SupervisorRules`.
        records: shared with the processes.
        child_main: what each of them runs.
        registers: what is known from the journal, beside what happened to processes; owned by the supervisor's loop from
            here on.
        writer: tells other nodes what happened to processes here; None: nobody is told.
        is_terminated: whether the run with a key is to be ended; where the pool cannot, it never is.
        prepare: connects, checks the topology, reads the journal and prints the banner; on a helper thread, after the
            template was forked.
        on_ready: called once, when all processes consume.
        health: told how all stands, at the start and at each look of the patrol; None: nobody wants to know.
    """

    def __init__(
        self,
        rules: SupervisorRules,
        *,
        records: RecordTable,
        child_main: ChildMain,
        registers: Sequence[Register],
        writer: JournalWriter | None,
        is_terminated: Callable[[str], bool],
        prepare: Callable[[], None],
        on_ready: Callable[[], None],
        health: Health | None = None,
    ) -> None:
        self._rules, self._records, self._child_main = rules, records, child_main
        self._prepare, self._on_ready, self._health = prepare, on_ready, health
        self._processes: dict[int, ChildProcess] = {}
        self._serial = 0
        self._state = StopState.RUNNING
        self._is_clean = True
        self._is_ready = False
        self._is_finished = False
        self._restarts = Restarts()
        self._paused = 0
        self._error: Exception | None = None
        self.loop = Loop()
        self._news = News(writer, self.loop)
        claims = Claims(after=rules.claim_after, tell=self._news.add, clock=SYSTEM_CLOCK)
        self._answers = Answers(reply=self._reply, tell=self._news.add, claims=claims, clock=SYSTEM_CLOCK)
        self._journal = JournalState((*registers, self._answers, claims))
        self._patrol = Patrol(
            processes=self._processes,
            records=records,
            hung_timeout=rules.hung_timeout,
            is_terminated=is_terminated,
            answers=self._answers,
            news=self._news,
            loop=self.loop,
            on_look=self._tell_health,
        )
        self._is_review_planned = False

    @property
    def is_consuming(self) -> bool:
        """Whether all processes have consumers on all their queues."""
        running = list(self._processes.values())
        return len(running) >= self._rules.processes and all(process.is_consuming for process in running)

    def run(self) -> int:
        """Run the node; returns its exit code.

        Raises:
            AmqpTasksError: it could not start.
        """
        self._template_pid, self._template = fork_template(self._child_main, self._rules.node)
        try:
            self.loop.add_reader(self._template.socket.fileno(), self._on_template)
            threading.Thread(target=self._prepare_aside, name="amqp-tasks-prepare", daemon=True).start()
            self._tell_health()
            self._patrol.start()
            self.loop.run()
        finally:
            self._is_finished = True
            end_template(self._template_pid, self._template)
            self.loop.close()
        if self._error is not None:
            raise self._error
        return 0 if self._is_clean else 1

    def stop(self, timeout: float | None = None) -> None:
        """Stop warm; a second call stops cold. Any thread."""
        self.loop.call_soon(partial(self._advance_stop, timeout))

    def cut(self) -> None:
        """Stop cold at once. Any thread."""
        self.loop.call_soon(self._begin_cold)

    def restart(self) -> None:
        """Replace all processes: successors start at once, the old ones end when their tasks have. Owner thread only."""
        if self._state is not StopState.RUNNING:
            return
        logger.info("%s: all processes are replaced", self._rules.node, extra={"action": "restart"})
        for process in self._processes.values():
            process.send({"kind": "recycle"})

    def learn(self, entries: Sequence[JournalEntry]) -> None:
        """Take entries of the journal into account and tell the processes. Owner thread only."""
        if passed_on := self._journal.learn(entries):
            told = journal_news(passed_on)
            for process in self._processes.values():
                if process.is_up:
                    process.send(told)

    def dump_stacks(self) -> None:
        """Let all processes print their stacks, one after the other: written at once, they would lie in each other's lines."""
        for number, process in enumerate(self._processes.values()):
            self.loop.call_later(number * _DUMP, partial(self._dump_stacks_of, process))

    def _dump_stacks_of(self, process: ChildProcess) -> None:
        # One that has ended meanwhile would have no stacks below its line, and its number may be that of another.
        if process.serial in self._processes:
            process.dump_stacks()

    # Starting.

    def _prepare_aside(self) -> None:
        try:
            self._prepare()
        except Exception as exc:  # noqa: BLE001 - handed to `run`, which raises it
            failure = exc
            self.loop.call_soon(lambda: self._give_up(failure))
        else:
            self.loop.call_soon(self._fill_up)

    def _fill_up(self) -> None:
        """Have as many processes as are wanted, those that wait for their pause included. While the places of ended ones
        are not free yet there are fewer: each exit calls again."""
        if self._state is not StopState.RUNNING or self._is_finished:
            return
        active = sum(not process.is_recycling for process in self._processes.values())
        used = {process.index for process in self._processes.values()}
        free = [index for index in range(self._rules.places) if index not in used]
        for index in free[: max(0, self._rules.processes - active - self._paused)]:
            self._spawn(index)

    def _spawn(self, index: int) -> None:
        records = self._records.of_process(index)
        records.reset()
        ours, theirs = Link.pair()
        self._serial += 1
        process = ChildProcess(
            serial=self._serial, index=index, link=Link(ours), started=SYSTEM_CLOCK.monotonic()
        )
        self._processes[process.serial] = process
        self._answers.joined(process.serial, records.running)
        self.loop.add_reader(ours.fileno(), partial(self._on_link, process))
        with theirs:
            try:
                self._template.send(
                    {"kind": "fork", "serial": process.serial, "index": index}, fd=theirs.fileno()
                )
            except LinkClosed:
                # `_on_template` hears of its death as well.
                return
        self.loop.call_later(self._rules.alive_timeout, partial(self._check_alive, process))

    def _check_alive(self, process: ChildProcess) -> None:
        if process.serial not in self._processes or process.is_up:
            return
        if not process.pid:
            # Not even forked: the template is stopped or starved. There is nothing to kill yet.
            self.loop.call_later(self._rules.alive_timeout, partial(self._check_alive, process))
        else:
            logger.error(
                "process %d gave no sign of life and is killed", process.pid, extra={"action": "mute"}
            )
            process.kill()

    def _give_up(self, error: Exception) -> None:
        """End the node with an error; processes that run are stopped warm."""
        if self._error is None:
            self._error = error
        self._begin_warm(self._rules.stop_timeout)

    # What others are told of it.

    def _tell_health(self) -> None:
        if self._health is None:
            return
        now, is_stopping = SYSTEM_CLOCK.monotonic(), self._state is not StopState.RUNNING
        reports = [
            process.standing.report(
                process.pid,
                self._records.of_process(process.index),
                now,
                is_stopping=is_stopping or process.is_recycling,
            )
            for process in self._processes.values()
        ]
        state = State.RUNNING if self._is_ready else State.STARTING
        self._health.tell(State.STOPPING if is_stopping else state, reports, now)

    # Messages.

    def _on_template(self) -> None:
        try:
            messages = self._template.receive()
        except LinkClosed:
            self._template_died()
            return
        for message in messages:
            if message["kind"] == "forked":
                process = self._processes.get(message["serial"])
                if process is not None:
                    process.pid = message["pid"]
            elif message["kind"] == "unforked":
                self._unforked(message["serial"], message["error"])
            else:
                self._exited(message["pid"], message["status"])

    def _unforked(self, serial: int, error: str) -> None:
        process = self._processes[serial]
        logger.error("cannot fork a process: %s", error, extra={"action": "unforked"})
        self._forget(process, cause=None)
        if self._state is StopState.RUNNING:
            self._restart_later(process)
        else:
            self._finish_if_empty()

    def _template_died(self) -> None:
        self.loop.remove_reader(self._template.socket.fileno())
        if not self._is_finished:
            logger.critical(
                "the template process died, and its worker processes with it: the node ends",
                extra={"action": "template_died"},
            )
            self._is_clean = False
            for process in list(self._processes.values()):
                self._forget(process, cause=None)
            self._finish()

    def _on_link(self, process: ChildProcess) -> None:
        try:
            messages = process.link.receive()
        except LinkClosed:
            self.loop.remove_reader(process.link.socket.fileno())
            self.loop.call_later(self._rules.lost_wait, partial(self._check_gone, process))
            return
        for message in messages:
            self._on_message(process, message)

    def _check_gone(self, process: ChildProcess) -> None:
        if process.serial in self._processes:
            logger.error("process %d hangs at its end and is killed", process.pid, extra={"action": "hung"})
            # One that ends in order has emptied its records, or has said that it leaves something. What another runs has closed
            # its end of the link, and would do so again wherever it is delivered: that is charged.
            process.signal(signal.SIGKILL)

    def _on_message(self, process: ChildProcess, message: Message) -> None:
        process.note(message)
        kind = message["kind"]
        if kind == "up":
            self._begin(process)
        elif kind == "consumer":
            self._on_consumer(process, message)
        elif kind == "recycling":
            self._fill_up()
        elif kind == "ask":
            self._answers.ask(process.serial, message["number"], message["keys"])
            self._plan_review()
        elif kind == "open":
            self._answers.tell_open(process.serial, message["keys"])
            self._news.send()
        elif kind == "finished":
            self._answers.tell_finished(process.serial, message["keys"])
        elif kind == "refused":
            self._answers.tell_refused(process.serial, message["keys"])

    def _begin(self, process: ChildProcess) -> None:
        """Tell a new process what it must know before it consumes; what is learned from now on it is told as well."""
        process.is_up = True
        for entry in self._journal.for_a_new_process():
            process.send(journal_news((entry,)))
        process.send({"kind": "begin"})

    def _on_consumer(self, process: ChildProcess, message: Message) -> None:
        process.is_consuming = message["state"] == "consuming"
        if message["state"] == "failed":
            # It ends by itself when its tasks have; until then it takes none, and has no successor.
            self.loop.call_later(self._rules.stop_timeout, partial(self._cut_process, process))
        if self.is_consuming and not self._is_ready and self._state is StopState.RUNNING:
            self._is_ready = True
            self._on_ready()

    def _reply(self, serial: int, number: int, found: dict[str, Verdict]) -> None:
        process = self._processes.get(serial)
        if process is None:
            return
        facts = {key: asdict(verdict) for key, verdict in found.items()}
        process.send({"kind": "verdicts", "number": number, "found": facts})

    def _plan_review(self) -> None:
        if not self._is_review_planned and self._answers.next_deadline is not None:
            self._is_review_planned = True
            self.loop.call_later(_REVIEW, self._review)

    def _review(self) -> None:
        self._is_review_planned = False
        self._answers.review()
        self._plan_review()

    def _cut_process(self, process: ChildProcess) -> None:
        """End a process that has had its time, if it is still there. Its tasks run elsewhere then, and none is charged."""
        # A stop of the node has a deadline of its own.
        if process.serial in self._processes and self._state is StopState.RUNNING:
            process.is_killed = True
            process.send({"kind": "cut"})
            self.loop.call_later(self._rules.cold_stop_timeout, partial(self._kill_process, process))

    def _kill_process(self, process: ChildProcess) -> None:
        if process.serial in self._processes:
            process.kill()

    # Ends of processes.

    def _exited(self, pid: int, status: int) -> None:
        process = next((process for process in self._processes.values() if process.pid == pid), None)
        if process is None:
            return
        self._forget(process, describe_status(status))
        if status or process.is_killed:
            self._report_loss(process, describe_status(status))
        if self._state is not StopState.RUNNING:
            self._is_clean = self._is_clean and not status and not process.is_killed
            self._news.send(self._finish_if_empty)
        else:
            self._paused += 1
            self._news.send(partial(self._replace_told, process))

    def _replace_told(self, process: ChildProcess) -> None:
        """Replace a process whose crash is known to other nodes by now."""
        self._paused -= 1
        if self._state is StopState.RUNNING:
            self._replace(process)
        else:
            self._finish_if_empty()

    def _forget(self, process: ChildProcess, cause: str | None) -> None:
        del self._processes[process.serial]
        self.loop.remove_reader(process.link.socket.fileno())
        for message in process.last_words():
            if message["kind"] == "finished":
                self._answers.tell_finished(process.serial, message["keys"])
            elif message["kind"] == "refused":
                self._answers.tell_refused(process.serial, message["keys"])
        process.link.close()
        if process.is_killed:
            cause = None
        terminated, overdue = self._patrol.must_have_ended(process, by=SYSTEM_CLOCK.monotonic())
        process.has_crashed = bool(overdue or terminated)
        for key, crashes in self._answers.left(process.serial, cause, overdue, terminated):
            logger.error(
                "process %d died (%s) while it ran task %s, for the %d. time",
                process.pid, cause, name_of(key), crashes,
                extra={"action": "crashed", "task_id": name_of(key)},
            )  # fmt: skip
            process.has_crashed = True

    def _report_loss(self, process: ChildProcess, how: str) -> None:
        logger.log(
            logging.WARNING if process.is_killed else logging.ERROR,
            "process %d ended: %s", process.pid, how, extra={"action": "process_ended"},
        )  # fmt: skip

    def _replace(self, process: ChildProcess) -> None:
        if process.error and not self._is_ready:
            self._give_up(ConfigurationError(f"cannot consume: {process.error}"))
        elif process.was_of_use(SYSTEM_CLOCK.monotonic()):
            self._restarts.reset()
            self._fill_up()
        else:
            self._restart_later(process)

    def _restart_later(self, process: ChildProcess) -> None:
        pause = self._restarts.next_pause()
        logger.error(
            "a process ended before it was of use (%s), next one in %.1f s", process.error or "see above", pause,
            extra={"action": "restart_later"},
        )  # fmt: skip
        self._paused += 1
        self.loop.call_later(pause, self._end_pause)

    def _end_pause(self) -> None:
        self._paused -= 1
        self._fill_up()

    # Stopping.

    def _advance_stop(self, timeout: float | None) -> None:
        if self._state is StopState.RUNNING:
            self._begin_warm(self._rules.stop_timeout if timeout is None else timeout)
        else:
            self._begin_cold()

    def _begin_warm(self, timeout: float) -> None:
        if self._state is not StopState.RUNNING:
            return
        self._state = StopState.WARM
        logger.info("%s: warm stop, running tasks may end", self._rules.node, extra={"action": "warm_stop"})
        self._tell_health()
        for process in self._processes.values():
            process.send({"kind": "stop", "timeout": timeout})
        # A little later than the processes' own deadline, which is the better one: it closes in order.
        self.loop.call_later(timeout + 1.5, self._begin_cold)
        self._finish_if_empty()

    def _begin_cold(self) -> None:
        if self._state is StopState.COLD or self._is_finished:
            return
        self._state = StopState.COLD
        self._is_clean = False
        logger.warning("%s: cold stop", self._rules.node, extra={"action": "cold_stop"})
        self._tell_health()
        for process in self._processes.values():
            process.is_killed = True
            process.send({"kind": "cut"})
        self.loop.call_later(self._rules.cold_stop_timeout, self._kill_all)
        self._finish_if_empty()

    def _kill_all(self) -> None:
        for process in self._processes.values():
            process.kill()
        self.loop.call_later(END_TIMEOUT, self._finish)

    def _finish_if_empty(self) -> None:
        if not self._processes:
            self._finish()

    def _finish(self) -> None:
        self._is_finished = True
        self.loop.stop()
