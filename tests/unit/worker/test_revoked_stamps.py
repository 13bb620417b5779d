"""What the journal says of revoked stamps (P174)."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import Envelope, JournalEntry
from amqp_tasks.worker._revoked_stamps import RevokedStamps
from amqp_tasks.worker._termination import termination_in
from support.fake_deliveries import FakeClock, job_of

DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    """Time that is moved."""
    return FakeClock()


@pytest.fixture
def register(clock: FakeClock) -> RevokedStamps:
    """What is tested."""
    return RevokedStamps(max_age=DAY, clock=clock, maximum=3)


def _entry(stamps: Any, kind: str = "revoke-stamps", time: float = 1000.0, **facts: Any) -> JournalEntry:
    return JournalEntry(kind=kind, id="e", time=time, sender="s", facts={"stamps": stamps, **facts})


def _task(**stamps: Any) -> Envelope:
    job = job_of("t", headers={"stamped_headers": [*stamps], "stamps": stamps})
    assert job.envelope is not None
    return job.envelope


def test_one_of_the_values_is_enough(register: RevokedStamps) -> None:
    register.apply(_entry({"batch": ["b-1", 7]}))

    assert [register.has(_task(batch=value)) for value in ("b-1", 7, ["b-0", "b-1"], "b-2", [["b-1"]])] == [
        True, True, True, False, False,
    ]  # fmt: skip
    assert not register.has(_task(other="b-1"))
    assert not register.has(_task())


def test_what_is_unrevoked_runs_again(register: RevokedStamps) -> None:
    register.apply(_entry({"batch": ["b-1", "b-2"]}))
    register.apply(_entry({"batch": ["b-1"]}, "unrevoke-stamps"))

    assert (register.has(_task(batch="b-1")), register.has(_task(batch="b-2"))) == (False, True)


def test_the_oldest_leave_when_there_are_many_or_they_are_old(
    register: RevokedStamps, clock: FakeClock
) -> None:
    register.apply(_entry({"batch": [1, 2, 3, 4]}))
    assert (register.has(_task(batch=1)), register.has(_task(batch=4))) == (False, True)

    clock.seconds += DAY + 1
    register.apply(_entry({"batch": [5]}, time=clock.seconds))

    assert (register.has(_task(batch=4)), register.has(_task(batch=5))) == (False, True)


def test_one_that_is_too_old_counts_no_more_though_nothing_else_is_said(
    register: RevokedStamps, clock: FakeClock
) -> None:
    register.apply(_entry({"batch": ["b-1"]}))

    clock.seconds += DAY + 1

    assert not register.has(_task(batch="b-1"))


def test_a_new_process_is_told_what_is_known(register: RevokedStamps, clock: FakeClock) -> None:
    register.apply(_entry({"batch": ["b-1"], "night": [True]}))
    other = RevokedStamps(max_age=DAY, clock=clock)

    for entry in register.entries():
        other.apply(entry)

    assert other.has(_task(batch="b-1"))
    assert other.has(_task(night=True))


@pytest.mark.parametrize("stamps", [None, [], {"batch": "b-1"}, {"batch": [None]}, {"batch": [[]]}])
def test_an_entry_of_another_shape_changes_nothing(register: RevokedStamps, stamps: Any) -> None:
    with pytest.raises(MalformedMessage):
        register.apply(_entry(stamps))

    assert list(register.entries()) == []


def test_a_termination_of_another_type_is_refused_as_a_whole(register: RevokedStamps) -> None:
    with pytest.raises(MalformedMessage):
        register.apply(_entry({"batch": ["b-1"]}, terminate="yes"))

    assert list(register.entries()) == []


def test_termination_means_tasks_by_their_stamps() -> None:
    wish = termination_in(_entry({"batch": ["b-1"]}, terminate=True, signal="SIGINT"))

    assert wish is not None
    assert (wish.is_meant(_task(batch="b-1")), wish.is_meant(_task(batch="b-2"))) == (True, False)
    assert termination_in(_entry({"batch": ["b-1"]}, terminate=False)) is None
