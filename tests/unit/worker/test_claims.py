"""Long runs are claimed before the broker may deliver them again, and no other node starts them meanwhile."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import JournalEntry
from amqp_tasks.worker._asks import Answers
from amqp_tasks.worker._claims import BEAT, CLAIM, LEASE, RELEASE, SETTLED_AFTER, Claims
from amqp_tasks.worker._verdicts import MAX_AGE, UNKNOWN, Verdict
from support.fake_deliveries import FakeClock

AFTER = 900.0


class Cluster:
    """Nodes that read each other's entries, at once and in order."""

    def __init__(self, *names: str) -> None:
        self.clock = FakeClock()
        self.log: list[tuple[str, dict[str, Any]]] = []
        self.nodes = {name: self.add() for name in names}

    def add(self) -> Node:
        return Node(self)

    def tell(self, kind: str, entry_id: str, facts: dict[str, Any]) -> None:
        self.log.append((kind, facts))
        entry = JournalEntry(kind=kind, id=entry_id, time=self.clock.seconds, sender="node", facts=facts)
        for node in self.nodes.values():
            node.read(entry)

    def pass_time(self, seconds: float) -> None:
        """Every node that lives looks twice a minute."""
        until = self.clock.seconds + seconds
        while self.clock.seconds < until:
            self.clock.seconds = min(until, self.clock.seconds + 30)
            for node in self.nodes.values():
                node.answers.look()


class Node:
    """One supervisor's knowledge; process 1 asks, process 2 runs."""

    def __init__(self, cluster: Cluster) -> None:
        self.running: list[str] = []
        self.found: dict[str, Verdict] = {}
        self.claims = Claims(after=AFTER, tell=cluster.tell, clock=cluster.clock)
        self.answers = Answers(
            reply=lambda asker, number, found: self.found.update(found),
            tell=cluster.tell,
            claims=self.claims,
            clock=cluster.clock,
        )
        self.answers.joined(1, list[str])
        self.answers.joined(2, lambda: self.running)

    def read(self, entry: JournalEntry) -> None:
        register = self.answers if entry.kind in self.answers.kinds else self.claims
        register.apply(entry)

    def verdict(self, key: str) -> Verdict:
        self.found.clear()
        self.answers.ask(1, 1, [key])
        return self.found.get(key, UNKNOWN)


@pytest.fixture
def cluster() -> Cluster:
    made = Cluster("first", "second")
    made.nodes["first"].running.append("long")
    return made


def test_a_long_run_is_known_elsewhere_before_it_is_delivered_again(cluster: Cluster) -> None:
    second = cluster.nodes["second"]
    cluster.pass_time(AFTER - 60)
    assert second.verdict("long") == UNKNOWN
    assert cluster.log == []

    cluster.pass_time(90)

    assert second.verdict("long") == Verdict(is_running=True)


def test_short_runs_are_told_nobody(cluster: Cluster) -> None:
    first = cluster.nodes["first"]
    for number in range(100):
        first.running[:] = [f"short-{number}"]
        cluster.pass_time(60)

    assert cluster.log == []


def test_a_claim_lasts_as_long_as_its_supervisor_says_that_it_lives(cluster: Cluster) -> None:
    cluster.pass_time(AFTER + 10 * LEASE)

    assert cluster.nodes["second"].verdict("long") == Verdict(is_running=True)
    assert {kind for kind, _ in cluster.log} == {CLAIM}
    assert [facts["keys"] for _, facts in cluster.log[:2]] == [["long"], []]


def test_a_node_that_is_gone_is_believed_for_the_time_of_its_lease(cluster: Cluster) -> None:
    cluster.pass_time(AFTER + BEAT)
    del cluster.nodes["first"]

    cluster.pass_time(LEASE - BEAT)
    assert cluster.nodes["second"].verdict("long") == Verdict(is_running=True)
    cluster.pass_time(BEAT)
    assert cluster.nodes["second"].verdict("long") == UNKNOWN


def test_a_node_that_is_started_again_does_not_answer_for_its_former_life(cluster: Cluster) -> None:
    cluster.pass_time(AFTER + BEAT)
    cluster.nodes["first"] = again = cluster.add()
    again.running.append("another")

    cluster.pass_time(AFTER + LEASE)

    assert cluster.nodes["second"].verdict("another") == Verdict(is_running=True)
    assert cluster.nodes["second"].verdict("long") == UNKNOWN


def test_a_run_whose_delivery_was_taken_back_is_finished_everywhere(cluster: Cluster) -> None:
    first, second = cluster.nodes["first"], cluster.nodes["second"]
    cluster.pass_time(AFTER + BEAT)
    first.answers.tell_open(2, ["long"])
    first.running.clear()
    cluster.pass_time(SETTLED_AFTER + BEAT)
    assert second.verdict("long") == Verdict(is_running=True)  # it is being stored

    first.answers.tell_finished(2, ["long"])

    assert second.verdict("long") == Verdict(is_finished=True)


def test_a_run_whose_delivery_was_taken_back_and_that_is_refused_is_refused_everywhere(
    cluster: Cluster,
) -> None:
    first, second = cluster.nodes["first"], cluster.nodes["second"]
    cluster.pass_time(AFTER + BEAT)
    first.answers.tell_open(2, ["long"])
    first.running.clear()

    first.answers.tell_refused(2, ["long"])

    assert second.verdict("long") == Verdict(is_refused=True)


def test_a_run_that_ends_long_after_its_claim_is_finished_everywhere(cluster: Cluster) -> None:
    first, second = cluster.nodes["first"], cluster.nodes["second"]
    cluster.pass_time(AFTER + BEAT)
    cluster.pass_time(3 * MAX_AGE)
    first.running.clear()

    first.answers.tell_finished(2, ["long"])

    assert second.verdict("long") == Verdict(is_finished=True)


def test_a_run_that_is_cut_off_before_its_time_is_claimed_at_once(cluster: Cluster) -> None:
    cluster.nodes["first"].answers.tell_open(2, ["long", "settling"])

    assert cluster.nodes["second"].verdict("long") == Verdict(is_running=True)
    assert cluster.nodes["second"].verdict("settling") == UNKNOWN


def test_a_run_that_ended_as_it_should_is_forgotten(cluster: Cluster) -> None:
    cluster.pass_time(AFTER + BEAT)
    cluster.nodes["first"].running.clear()

    cluster.pass_time(SETTLED_AFTER + 30)

    assert cluster.log[-1][0] == RELEASE
    assert cluster.nodes["second"].verdict("long") == UNKNOWN
    length = len(cluster.log)
    cluster.pass_time(LEASE)
    assert len(cluster.log) == length


@pytest.mark.parametrize("cause", ["signal 9", None])
def test_the_run_of_a_process_that_died_may_be_started_elsewhere_at_once(
    cluster: Cluster, cause: str | None
) -> None:
    cluster.pass_time(AFTER + BEAT)
    second = cluster.nodes["second"]
    assert second.verdict("long") == Verdict(is_running=True)

    cluster.nodes["first"].answers.left(2, cause)

    assert not second.verdict("long").is_running
    cluster.clock.seconds += 1  # news of one more crash are waited for
    second.answers.review()
    assert second.found.get("long", UNKNOWN) == (
        Verdict(crashes=1, cause=cause) if cause is not None else UNKNOWN
    )


def test_a_claim_that_was_sent_again_behind_its_release_is_not_believed(cluster: Cluster) -> None:
    # As when RabbitMQ returns the one, while the stream starts, and takes the other a moment later.
    first, late = cluster.nodes["first"], cluster.add()
    first.answers.tell_open(2, ["long"])
    first.answers.left(2, None)
    (claim, claimed), (release, released) = cluster.log

    for kind, facts in ((release, released), (claim, claimed)):
        late.read(JournalEntry(kind=kind, id=kind, time=0.0, sender="node", facts=facts))

    assert (claim, release) == (CLAIM, RELEASE)
    assert late.verdict("long") == UNKNOWN


def test_what_two_nodes_say_of_a_run_is_kept_apart(cluster: Cluster) -> None:
    def entry(kind: str, by: str, number: int) -> JournalEntry:
        facts = {"by": by, "number": number, "keys": ["long"]}
        return JournalEntry(kind=kind, id=f"{by}{number}", time=0.0, sender="s", facts=facts)

    reader = cluster.add()
    for kind, by, number in ((RELEASE, "a", 2), (CLAIM, "b", 1), (CLAIM, "a", 1)):
        reader.read(entry(kind, by, number))
    assert reader.verdict("long") == Verdict(is_running=True)
    reader.read(entry(RELEASE, "b", 2))
    assert reader.verdict("long") == UNKNOWN

    for kind, by, number in ((CLAIM, "a", 3), (CLAIM, "b", 3), (RELEASE, "b", 4)):
        reader.read(entry(kind, by, number))
    assert reader.verdict("long") == Verdict(is_running=True)


def test_a_run_that_is_claimed_again_after_its_release_is_elsewhere(cluster: Cluster) -> None:
    first, second = cluster.nodes["first"], cluster.nodes["second"]
    first.answers.tell_open(2, ["long"])
    first.answers.left(2, None)
    assert second.verdict("long") == UNKNOWN
    first.answers.joined(2, lambda: first.running)

    first.answers.tell_open(2, ["long"])

    assert second.verdict("long") == Verdict(is_running=True)


def test_a_release_says_nothing_of_another_nodes_run(cluster: Cluster) -> None:
    third = cluster.nodes["third"] = cluster.add()
    first, second = cluster.nodes["first"], cluster.nodes["second"]
    second.running.append("long")
    first.answers.tell_open(2, ["long"])
    second.answers.tell_open(2, ["long"])

    first.answers.left(2, None)

    assert third.verdict("long") == Verdict(is_running=True)


def test_the_node_itself_heeds_no_claim_of_its_own(cluster: Cluster) -> None:
    first = cluster.nodes["first"]
    cluster.pass_time(AFTER + BEAT)
    first.running.clear()

    assert first.verdict("long") == UNKNOWN


@pytest.mark.parametrize(
    "facts",
    [
        {"by": 1, "number": 9, "keys": [], "finished": True},
        {"by": "x", "number": 9, "keys": "y", "finished": True},
        {"by": "x", "number": 9, "keys": ["y"], "finished": "yes"},
        {"by": "x", "number": 9, "keys": ["y"], "refused": "yes"},
        {"by": "x", "number": "9", "keys": ["y"], "finished": True},
    ],
    ids=["by", "keys", "finished", "refused", "number"],
)
def test_what_is_no_such_entry_changes_nothing(cluster: Cluster, facts: dict[str, Any]) -> None:
    second = cluster.nodes["second"]
    cluster.pass_time(AFTER + BEAT)

    with pytest.raises(MalformedMessage):
        second.read(JournalEntry(kind=RELEASE, id="e", time=0.0, sender="s", facts=facts))

    assert second.verdict("long") == Verdict(is_running=True)
