"""Tokens of limits for all nodes in one process: none is used twice, leaked, or lost sight of."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from amqp_tasks.clock import SYSTEM_CLOCK
from amqp_tasks.errors import BrokerUnreachable
from amqp_tasks.message import token_plan
from amqp_tasks.transport import QueueStatus, Settlement
from amqp_tasks.worker._holding import Holding
from amqp_tasks.worker._job import Job
from amqp_tasks.worker._lane import Lane, Place
from amqp_tasks.worker._ledger import Ledger
from amqp_tasks.worker._token_keeper import TokenKeeper
from amqp_tasks.worker._tokens import MOST_IN_HAND, Tokens
from support import eventually
from support.fake_deliveries import FakeClock, FakeDelivery, job_of

PLAN = token_plan("act", 1 / 6)


@dataclass
class FakeConsumer:
    settled: list[Settlement] = field(default_factory=list[Settlement])

    def settle(self, delivery: object, settlement: Settlement) -> None:
        self.settled.append(settlement)

    def pause_queues(self, queue_names: Collection[str]) -> None:
        """Nothing comes by itself."""


@dataclass
class FakeTransport:
    """Its queues hold no message."""

    consumer: FakeConsumer = field(default_factory=FakeConsumer)
    deletes: list[str] = field(default_factory=list[str])

    def consume(self, queue_names: Sequence[str], options: Any, **callbacks: Any) -> FakeConsumer:
        return self.consumer

    def queue_status(self, name: str, **options: Any) -> QueueStatus:
        return QueueStatus(name=name, messages=0, consumers=1)

    def ensure_topology(self, *args: Any, **options: Any) -> None:
        """It is there."""

    def delete_queue(self, name: str, **options: Any) -> None:
        self.deletes.append(name)
        raise BrokerUnreachable("gone meanwhile", url="amqp://localhost//")


@dataclass
class Effects:
    ran: list[Job] = field(default_factory=list[Job])

    def run_soon(self, jobs: Sequence[Job]) -> None:
        self.ran += jobs

    def hand_back(self, jobs: Sequence[Job]) -> None:
        raise AssertionError("not here")

    def take_turn_later(self, job: Job, seconds: int) -> None:
        raise AssertionError("not here")

    def resize(self) -> None:
        """The prefetch is none of this."""


@dataclass
class Process:
    tokens: Tokens
    clock: FakeClock
    effects: Effects
    consumer: FakeConsumer

    def with_token(self, name: str) -> Job:
        """A job that has got the token."""
        job = job_of(name)
        self.tokens.want(job, "act")
        self.tokens._on_deliveries([FakeDelivery("token", queue_name=PLAN.queue_name)])
        assert self.effects.ran[-1] is job
        return job


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Process:
    clock, effects, transport = FakeClock(), Effects(), FakeTransport()
    holding = Holding(
        ledger=Ledger(in_flight=10), effects=effects, call_later=lambda _seconds, _then: None, clock=clock
    )
    tokens = Tokens([PLAN], transport=cast("Any", transport), holding=holding, effects=effects, clock=clock)
    monkeypatch.setattr(tokens._keeper, "wake", lambda: None)
    tokens.note_ready(next(iter(tokens.places)), is_ready=True)
    return Process(tokens, clock, effects, transport.consumer)


def test_a_run_uses_up_its_token(process: Process) -> None:
    job = process.with_token("a")

    assert process.tokens.start(job)
    process.tokens.began(job)

    assert process.consumer.settled == [Settlement.DROP]


def test_a_token_that_finds_no_slot_goes_back_and_lets_no_run_start_any_more(
    process: Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = process.with_token("a")
    process.clock.seconds += MOST_IN_HAND * 2
    started: list[bool] = []
    # A slot gets free while the token is on its way back.
    monkeypatch.setattr(process.tokens, "update", lambda: started.append(process.tokens.start(job)))

    process.tokens.tick()

    assert started == [False]
    assert process.consumer.settled == [Settlement.REQUEUE]


def test_a_token_that_is_about_to_be_used_does_not_go_back_by_the_clock(process: Process) -> None:
    job = process.with_token("a")
    assert process.tokens.start(job)
    process.clock.seconds += MOST_IN_HAND * 2

    process.tokens.tick()
    assert process.consumer.settled == []

    process.tokens.give_back(job)
    assert process.consumer.settled == [Settlement.REQUEUE]
    assert process.tokens.in_hand(next(iter(process.tokens.places))) == 0


@dataclass
class Owner:
    """Waits for tokens, and settles what was judged; once."""

    places: list[Place] = field(
        default_factory=lambda: [Place(Lane(PLAN), cast("Callable[..., None]", None))]
    )
    judged_as: list[bool] = field(default_factory=list[bool])
    looks: int = 0

    def is_waiting(self, place: Place) -> bool:
        return True

    def in_hand(self, place: Place) -> int:
        return 0

    def note_ready(self, place: Place, *, is_ready: bool) -> None:
        place.is_ready = is_ready

    def note_look(self, place: Place, **seen: Any) -> None:
        self.looks += 1

    def judged(self, delivery: object, *, is_surplus: bool) -> None:
        if self.judged_as:
            raise RuntimeError("settled before")
        self.judged_as.append(is_surplus)


def test_a_lock_that_cannot_be_given_back_ends_nothing() -> None:
    owner, transport = Owner(), FakeTransport()
    keeper = TokenKeeper(cast("Any", transport), cast("Any", owner), clock=SYSTEM_CLOCK)
    keeper.wake()

    keeper.judge(owner.places[0], cast("Any", FakeDelivery("token")))
    eventually(lambda: owner.judged_as == [False] and bool(transport.deletes))
    before = owner.looks
    eventually(lambda: owner.looks > before, within=10)
    keeper.close(timeout=5)

    assert owner.judged_as == [False]
