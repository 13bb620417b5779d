"""What a workflow begins with: ids, messages that can go out now, gatherings (wire-celery 1.3)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import count
from typing import Any

import pytest

from amqp_tasks.canvas import (
    Gathering,
    Join,
    Message,
    Signature,
    abandoned,
    accumulated,
    chain,
    chord,
    first_errbacks,
    freeze,
    group,
    launch,
    signature,
)
from amqp_tasks.errors import ConfigurationError


def call(*args: object, **options: object) -> Signature:
    return Signature("t", args, options=options)


def frozen(part: Signature) -> Any:
    numbers = count(1)

    def further(_: Signature) -> Mapping[str, Any]:
        return {"reply_to": "replies"}

    return freeze(part, lambda: f"id-{next(numbers)}", further)


def begin(part: Signature, *args: object) -> list[Message | Gathering]:
    return list(launch(frozen(part), args=args))


def messages(plan: list[Message | Gathering]) -> list[Message]:
    return [item for item in plan if isinstance(item, Message)]


def gatherings(plan: list[Message | Gathering]) -> list[Gathering]:
    return [item for item in plan if isinstance(item, Gathering)]


def test_a_chain_is_one_message_that_carries_the_rest_in_reverse() -> None:
    (message,) = messages(begin(chain(call(1), call(2), call(3)), "first"))
    assert message.call.args == ("first", 1)
    assert [step["args"] for step in message.rest] == [(3,), (2,)]
    assert [step["options"]["task_id"] for step in message.rest] == ["id-3", "id-2"]
    assert message.joins == ()


def test_a_group_is_a_message_for_each_member_in_its_place() -> None:
    plan = begin(group(call(1), call(2)), "x")
    assert [(m.call.args, m.group, m.group_index, m.joins) for m in messages(plan)] == [
        (("x", 1), "id-1", 0, ()),
        (("x", 2), "id-1", 1, ()),
    ]
    assert not gatherings(plan)


def test_a_chord_is_a_gathering_and_members_that_report_to_it() -> None:
    plan = begin(chord([call(1), call(2)], call(3)) | call(4))
    (gathering,) = gatherings(plan)
    assert plan[0] is gathering
    assert (gathering.queue, gathering.size) == ("amqp_tasks.join.id-1", 2)
    assert isinstance(gathering.body, chain)
    assert [m.joins for m in messages(plan)] == [
        (Join(queue=gathering.queue, index=index, size=2),) for index in range(2)
    ]


def test_a_group_before_something_gathers_for_it_and_what_follows_travels_with_the_gathering() -> None:
    (message,) = messages(begin(chain(call(0), group(call(1), call(2)), call(3), call(4))))
    plan = list(launch(chain(*map(dict, reversed(message.rest)))))
    (gathering,) = gatherings(plan)
    assert gathering.body is not None
    assert gathering.body.args == (3,)
    assert [step["args"] for step in gathering.rest] == [(4,)]
    assert all(not m.rest for m in messages(plan))


def test_a_chain_in_a_header_reports_when_its_last_has_ended() -> None:
    (gathering, first, second) = begin(chord([chain(call(1), call(2)), call(3)], call(4)))
    assert isinstance(gathering, Gathering)
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert [step["args"] for step in first.rest] == [(2,)]
    assert first.joins == (Join(queue=gathering.queue, index=0, size=2),)


def test_a_group_that_something_waits_for_gathers_its_own_results() -> None:
    plan = list(launch(frozen(group(call(1))), joins=(Join(queue="q", index=0, size=1),)))
    (gathering,) = gatherings(plan)
    assert gathering.body is not None
    assert gathering.body.task == "celery.accumulate"
    assert gathering.joins == (Join(queue="q", index=0, size=1),)


def test_an_empty_header_is_no_wait() -> None:
    (message,) = begin(chord([], call(1)))
    assert isinstance(message, Message)
    assert message.call.args == ([], 1)


def test_freezing_gives_every_task_an_id_and_keeps_those_there_are() -> None:
    part = frozen(chain(call(1, task_id="mine"), chord([call(2), chain(call(3), call(4))], call(5))))
    lost = list(abandoned(part))
    assert {member.reply_to for member in lost} == {"replies"}
    ids = [member.task_id for member in lost]
    assert ids[0] == "mine"
    assert len(set(ids)) == 5


def test_members_of_a_generator_are_frozen_as_they_are_read() -> None:
    part = frozen(group(call(n) for n in range(3)))
    assert part.is_lazy
    assert len({m.call.id for m in messages(list(launch(part)))}) == 3


def test_callbacks_hold_what_a_generator_gives_in_lists() -> None:
    """Serializers other than JSON cannot write a generator."""
    lazy = chain(call(1), group(call(n) for n in range(2)))

    part = frozen(chain(call(1, link=[dict(lazy)]), call(2, link_error=lazy)))

    first, second = json.loads(json.dumps(part["kwargs"]["tasks"]))
    assert first["options"]["link"] == [second["options"]["link_error"]]
    members = first["options"]["link"][0]["kwargs"]["tasks"][1]["kwargs"]["tasks"]
    assert [member["args"] for member in members] == [[0], [1]]


def test_options_of_what_is_composed_reach_its_members() -> None:
    part = frozen(group(call(1), call(2, queue="own")).set(queue="q"))
    assert [member.options["queue"] for member in part.tasks] == ["q", "q"]
    assert frozen(chord([call(1)], call(2)).set(queue="q")).body.options["queue"] == "q"


def test_errbacks_of_a_chain_are_those_of_its_bodies_and_not_of_headers() -> None:
    errback = Signature("told")
    part = chain(call(1), group(call(2)), call(3)).link_error(errback)
    first, second = part.steps
    assert first.options["link_error"] == (errback,)
    assert isinstance(second, chord)
    assert "link_error" not in second.header.tasks[0].options
    assert first_errbacks(second) == ("", [errback])


def test_a_header_that_could_not_be_read_at_once_is_refused() -> None:
    """Who takes a join holds all of it unacked, and a channel holds 65,535 messages (U049)."""
    header = group(Signature("add", (n, n)) for n in range(60_001))
    with pytest.raises(ConfigurationError, match="at most 60000"):
        list(launch(freeze(chord(header, Signature("total")), lambda: "id", lambda _: {})))


def test_an_option_that_is_none_takes_no_id_away() -> None:
    frozen = freeze(
        Signature("add", options={"task_id": None, "reply_to": None}),
        lambda: "id",
        lambda _: {"reply_to": "r"},
    )
    assert frozen.options == {"task_id": "id", "reply_to": "r"}


def test_a_callback_on_complete_is_a_body_that_gets_outcomes_also_after_a_way_through_json() -> None:
    made = group(call(1), call(2)).on_complete(call("report"))
    read = signature(json.loads(json.dumps(made)))
    followed = call(0) | read | call("after")

    (gathering,) = gatherings(begin(read))
    assert gathering.on_complete
    assert gathering.body is not None
    assert gathering.body.args == ("report",)
    assert not gatherings(begin(chord([call(1)], call(2))))[0].on_complete
    assert isinstance(followed.tasks[1], chord)
    assert followed.tasks[1].is_on_complete
    assert repr(made) == "group(t(1), t(2)).on_complete(t('report'))"


def test_a_gathering_knows_the_first_call_that_fills_it() -> None:
    """Its watch goes where that goes, and what makes the list of a group."""
    part = accumulated(group(chain(call(1), call(2)), call(3)).set(queue="own"))

    (gathering,) = gatherings(begin(part, "given"))

    assert gathering.where.options["queue"] == "own"
    assert gathering.where.args == ("given", 1)
    assert gathering.body is not None
    assert (gathering.body.task, gathering.body.kwargs) == ("celery.accumulate", {"index": 0})


def test_the_first_call_of_a_chord_that_gathers_nothing_is_its_body() -> None:
    (gathering,) = gatherings(begin(chord([chord([], call("body")), call(1)], call(2))))

    assert gathering.where.args == ([], "body")
