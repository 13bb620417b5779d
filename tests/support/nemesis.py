"""Faults drawn at random, by a seed, while callers and workers run."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from support.eventually import let_pass
from support.fault_run import FaultRun
from support.fault_systems import OWN
from support.scenarios import KILLERS, Site
from support.workers import WorkerProcess

__all__ = ("HEARTBEAT", "Nemesis", "Strike", "draw")

HEARTBEAT = 4
"""Seconds, for the workers and callers of a random run: a dead connection is noticed after two of them."""

RECOVERY = 60.0
"""Seconds in which tasks are run again after any fault."""


@dataclass(frozen=True, kw_only=True)
class Strike:
    """One fault of a plan; `part`, between 0 and 1, says how long, whom, or which."""

    name: str
    part: float


def draw(seed: int, names: tuple[str, ...]) -> Iterator[Strike]:
    """The faults of a seed, without an end; no kind comes again before all others came."""
    chance = random.Random(seed)
    while True:
        for name in chance.sample(names, len(names)):
            yield Strike(name=name, part=chance.random())


class Nemesis:
    """Injects the faults of a plan into a run, one after the other. The run's first worker is spared.

    Args:
        run: its callers and workers.
        site: where they run.
        tasks: to be run between two faults.
    """

    def __init__(self, run: FaultRun, site: Site, *, tasks: int) -> None:
        self.run, self.node, self.proxy, self.tasks = run, site.node, site.proxy, tasks
        self._serial = 0

    @staticmethod
    def names(*, with_outages: bool = True) -> tuple[str, ...]:
        """What it can do; `with_outages`: the slow ones too, those of the broker itself."""
        return (*_QUICK, *_OUTAGES) if with_outages else tuple(_QUICK)

    def strike(self, strike: Strike) -> None:
        """Inject one fault and wait until tasks are run again.

        Raises:
            AssertionError: they are not; only for ours, see `FaultRun.wait_done`.
        """
        act = _QUICK.get(strike.name) or _OUTAGES[strike.name]
        act(self, strike.part)
        self.run.wait_done(self.tasks, within=RECOVERY)

    def haunt(self, seed: int, *, seconds: float, with_outages: bool = True) -> list[Strike]:
        """Strike until the time is over; returns what was done."""
        done: list[Strike] = []
        deadline = time.monotonic() + seconds
        for strike in draw(seed, self.names(with_outages=with_outages)):
            if time.monotonic() >= deadline:
                break
            done.append(strike)
            self.strike(strike)
        return done

    def _victim(self) -> WorkerProcess:
        """The last worker; another if that has ended, as it should when its template was killed."""
        last = self.run.workers[-1]
        if last.children():
            return last
        self.run.end(last)
        return self.run.add_worker()

    def _kill_process(self, part: float) -> None:
        family = self._victim().children()
        with self.run.fault("process killed"), suppress(ProcessLookupError):
            os.kill(family[int(part * len(family))], signal.SIGKILL)

    def _kill_worker(self, part: float) -> None:
        victim = self._victim()
        with self.run.fault("worker killed"):
            self.run.kill(victim)
        self.run.add_worker()

    def _stop_worker(self, part: float) -> None:
        victim = self._victim()
        with self.run.fault("worker stopped"), suppress(ProcessLookupError):
            victim.signal(signal.SIGTERM)
            if part > 0.5:
                let_pass(part / 10)
                victim.signal(signal.SIGTERM)
            self.run.end(victim)
        self.run.add_worker()

    def _send_killer(self, part: float) -> None:
        self._serial += 1
        name = sorted(KILLERS)[int(part * len(KILLERS))]
        with self.run.fault("killer sent"):
            self.run.send(f"{name}-{self._serial}", *KILLERS[name])
            let_pass(1.0)

    def _cut(self, part: float) -> None:
        with self.run.fault("network cut"):
            self.proxy.cut()

    def _cut_in_a_frame(self, part: float) -> None:
        with self.run.fault("network cut in a frame"), self._network():
            self.proxy.cut_after(int(part * 1000), to_broker=part > 0.5)
            let_pass(1.0)

    def _close(self, part: float) -> None:
        with self.run.fault("connections closed"):
            # A peer may have none left that works, and make no other.
            self.node.vhost.close_connections(at_least=int(self.run.system.name == OWN))

    def _slow_down(self, part: float) -> None:
        with self.run.fault("network slow"), self._network():
            self.proxy.delay(part / 4)
            let_pass(2.0)

    def _black_hole(self, part: float) -> None:
        with self.run.fault("network black-holed"), self._network():
            self.proxy.blackhole()
            let_pass(part * 4 * HEARTBEAT)
            self.proxy.cut()

    def _half_open(self, part: float) -> None:
        with self.run.fault("network half-open"), self._network():
            self.proxy.half_open(to_client=part > 0.5)
            let_pass(part * 4 * HEARTBEAT)
            self.proxy.cut()

    def _abandon(self, part: float) -> None:
        with self.run.fault("connections dead"):
            self.proxy.abandon()
            let_pass(3 * HEARTBEAT)

    @contextmanager
    def _network(self) -> Iterator[None]:
        try:
            yield
        finally:
            self.proxy.resume()

    def _alarm(self, part: float) -> None:
        with self.run.fault("memory alarm"):
            self.node.raise_memory_alarm()
            let_pass(part * 5)
            self.node.clear_memory_alarm()

    def _pause(self, part: float) -> None:
        with self.run.fault("broker paused"):
            self.node.pause()
            let_pass(part * 3 * HEARTBEAT)
            self.node.resume()

    def _restart(self, part: float) -> None:
        with self.run.fault("broker restarted", port=self.node.port):
            self.node.restart()

    def _kill_broker(self, part: float) -> None:
        with self.run.fault("broker killed", port=self.node.port):
            self.node.kill()
            self.node.start()


_QUICK: Mapping[str, Callable[[Nemesis, float], None]] = {
    "kill process": Nemesis._kill_process,
    "kill worker": Nemesis._kill_worker,
    "stop worker": Nemesis._stop_worker,
    "send killer": Nemesis._send_killer,
    "cut": Nemesis._cut,
    "cut in a frame": Nemesis._cut_in_a_frame,
    "close connections": Nemesis._close,
    "slow": Nemesis._slow_down,
}
_OUTAGES: Mapping[str, Callable[[Nemesis, float], None]] = {
    "black hole": Nemesis._black_hole,
    "half-open": Nemesis._half_open,
    "abandon": Nemesis._abandon,
    "alarm": Nemesis._alarm,
    "pause": Nemesis._pause,
    "restart": Nemesis._restart,
    "kill broker": Nemesis._kill_broker,
}
