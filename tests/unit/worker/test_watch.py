"""What a look at a join by the clock decides."""

from __future__ import annotations

from dataclasses import replace

import pytest

from amqp_tasks.errors import MalformedMessage
from amqp_tasks.message import (
    DEFAULT_LIMITS,
    JOIN_PREFIX,
    WATCH_TASK,
    JoinWatch,
    StepMark,
    TaskTemplate,
    read_envelope,
    read_mark,
    read_watch,
    watch_message,
)
from amqp_tasks.transport import QueueStatus
from amqp_tasks.worker._watch import next_watch

DAY = 86_400.0
WATCH = JoinWatch(
    queue=f"{JOIN_PREFIX}it", definition={"size": 9, "body": {"task": "b"}}, since=1000.0, pause=60.0, seen=4
)


def _status(messages: int, consumers: int = 0) -> QueueStatus:
    return QueueStatus(name=WATCH.queue, messages=messages, consumers=consumers)


def test_a_new_outcome_begins_the_time_anew_and_the_pauses_grow() -> None:
    following = next_watch(WATCH, _status(5), 2000.0, 7 * DAY)

    assert following == replace(WATCH, seen=5, since=2000.0, pause=120.0)


def test_without_a_new_outcome_the_time_goes_on_until_it_is_over() -> None:
    following = next_watch(WATCH, _status(4), 1090.0, 100.0)
    assert following == replace(WATCH, pause=10.0)

    said = next_watch(WATCH, _status(4), 1100.0, 100.0)

    assert isinstance(said, str)
    assert "100 s" in said


def test_pauses_end_to_grow_and_nothing_is_given_up_without_a_limit() -> None:
    watch = WATCH
    for _ in range(20):
        following = next_watch(watch, _status(4), 1e12, None)
        assert isinstance(following, JoinWatch)
        watch = following

    assert watch.pause == DAY


def test_what_another_holds_is_not_missed() -> None:
    following = next_watch(replace(WATCH, is_suspect=True), _status(0, consumers=1), 2000.0, 7 * DAY)

    assert isinstance(following, JoinWatch)
    assert not following.is_suspect
    assert (following.seen, following.since) == (WATCH.seen, WATCH.since)


def test_an_emptied_queue_is_given_up_when_an_election_would_be_over() -> None:
    watch, pauses = WATCH, list[float]()
    while isinstance(following := next_watch(watch, _status(1), 2000.0, 7 * DAY), JoinWatch):
        assert following.is_suspect
        pauses.append(following.pause)
        watch = following

    assert "emptied" in following
    assert pauses[0] < WATCH.pause
    assert 60.0 <= sum(pauses) < 120.0


def test_an_emptied_queue_is_given_up_sooner_where_chords_have_less_time() -> None:
    suspect = replace(WATCH, is_suspect=True, pause=5.0)

    assert next_watch(suspect, _status(1), 2000.0, 24.0) == replace(suspect, pause=10.0)
    assert isinstance(next_watch(replace(suspect, pause=10.0), _status(1), 2000.0, 24.0), str)


def test_a_queue_that_was_counted_as_empty_in_an_election_is_not_given_up() -> None:
    suspect = replace(WATCH, is_suspect=True, pause=40.0)

    assert next_watch(suspect, _status(4), 1000.0, 7 * DAY) == replace(WATCH, pause=80.0)


def test_a_watch_travels_as_a_message() -> None:
    message = watch_message(WATCH, exchange="", routing_key="work")

    assert message.delay == pytest.approx(WATCH.pause)
    found = read_watch(read_envelope(message.properties), message.body, limits=DEFAULT_LIMITS)
    assert found == WATCH


def test_a_watch_of_named_steps_goes_by_the_name_of_the_first_that_waits() -> None:
    mark = StepMark(workflow_id="w", step="both", joins=2)
    part = {"body": {"task": "t", "options": {"headers": mark.header}}}

    message = watch_message(
        replace(WATCH, definition={"size": 2, "steps": [part, part]}), exchange="", routing_key="work"
    )

    assert read_mark(message.properties.headers) == mark


def test_a_watch_that_begins_anew_gives_its_join_the_whole_time() -> None:
    following = next_watch(WATCH.anew, _status(4), 9_000.0, 100.0)

    assert isinstance(following, JoinWatch)
    assert (following.seen, following.since) == (4, 9_000.0)


@pytest.mark.parametrize(
    "changes",
    [{"queue": "orders"}, {"definition": {"size": 1}}, {"since": "now"}, {"seen": None}],
)
def test_a_message_that_is_no_watch_is_refused(changes: dict[str, object]) -> None:
    told = {
        "queue": WATCH.queue, "definition": WATCH.definition, "since": 1.0, "pause": 1.0, "seen": 1,
        "is_suspect": False, **changes,
    }  # fmt: skip
    message = TaskTemplate(WATCH_TASK).build(exchange="", routing_key="work", kwargs=told)

    with pytest.raises(MalformedMessage, match="no watch"):
        read_watch(read_envelope(message.properties), message.body, limits=DEFAULT_LIMITS)
