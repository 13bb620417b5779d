"""The cases of `resolve` and `explain` that the real broker is not asked about elsewhere, and their text."""

from __future__ import annotations

from amqp_routing import (
    Binding,
    DestinationKind,
    Exchange,
    ExchangeType,
    Queue,
    Router,
    Topology,
    explain,
    headers_match,
    resolve,
)

_SHARDED = Topology(
    exchanges=(Exchange("by-user", ExchangeType.CONSISTENT_HASH), Exchange("in", ExchangeType.FANOUT)),
    queues=(Queue("s1"), Queue("s2"), Queue("all")),
    bindings=(
        Binding("in", "by-user", destination_kind=DestinationKind.EXCHANGE),
        Binding("in", "all"),
        Binding("by-user", "s1", routing_key="1"),
        Binding("by-user", "s2", routing_key="1"),
    ),
)


def test_behind_a_consistent_hash_every_candidate_is_named() -> None:
    explanation = explain(_SHARDED, "in", "user-7")

    assert resolve(_SHARDED, "in", "user-7") == ("all", "s1", "s2")
    assert not explanation.is_exact
    assert "may be chosen" in str(explanation)
    assert str(explanation).endswith("reaches 'all', 's1', 's2' (of those behind a consistent hash only one)")


def test_floats_differ_from_integers_in_headers() -> None:
    assert headers_match({"h": 1.5}, {"h": 1.5})
    assert not headers_match({"h": 1}, {"h": 1.0})
    assert not headers_match({"h": 1}, {"h": True})


def test_an_explanation_reads_from_the_task_to_the_queue() -> None:
    topology = Topology(
        exchanges=(
            Exchange("tasks", ExchangeType.TOPIC, alternate_exchange="rest"),
            Exchange("rest", ExchangeType.FANOUT),
        ),
        queues=(Queue("mail"), Queue("catch-all")),
        bindings=(Binding("tasks", "mail", routing_key="mail.#"), Binding("rest", "catch-all")),
    )
    router = Router([{"other": "q"}, {"app.*": {"exchange": "tasks", "routing_key": "media.encode"}}])

    explanation = explain(topology, "tasks", "media.encode", decision=router.decide("app.encode"))

    assert str(explanation).splitlines() == [
        "task 'app.encode'",
        "  - routes[0]: no name or pattern matches",
        "  + routes[1]: matches 'app.*'",
        "published to exchange 'tasks' with key 'media.encode'",
        "exchange 'tasks' (topic)",
        "  - does not match: key 'mail.#' -> queue 'mail'",
        "  no binding matches, so on to its alternate 'rest'",
        "exchange 'rest' (fanout), as the alternate of exchange 'tasks'",
        "  + matches: key '' -> queue 'catch-all'",
        "reaches 'catch-all'",
    ]
    assert [visit.exchange.name for visit in explanation.visits] == ["tasks", "rest"]


def test_an_explanation_says_why_nothing_is_reached() -> None:
    explanation = explain(Topology(queues=(Queue("mail"),)), "", "mial")

    assert explanation.queue_names == ()
    assert "no queue is called 'mial'" in str(explanation)
    assert "reaches no queue: the broker returns it (mandatory) or drops it" in str(explanation)
