"""What a topology finds wrong, and what it is told."""

from __future__ import annotations

import pickle

import pytest

from amqp_routing import (
    Binding,
    DestinationKind,
    Exchange,
    ExchangeType,
    Queue,
    QueueType,
    Topology,
    TopologyError,
)

_EVENTS = Exchange("events", ExchangeType.TOPIC)
_MAIL = Queue("mail")


def _faults(
    *,
    exchanges: tuple[Exchange, ...] = (),
    queues: tuple[Queue, ...] = (),
    bindings: tuple[Binding, ...] = (),
) -> tuple[str, ...]:
    with pytest.raises(TopologyError) as caught:
        Topology(exchanges=exchanges, queues=queues, bindings=bindings)
    return caught.value.faults


def test_members_are_found_by_name() -> None:
    topology = Topology(exchanges=(_EVENTS,), queues=(_MAIL, _MAIL), bindings=(Binding("events", "mail"),))

    assert topology.queue("mail") == _MAIL
    assert topology.queue("post") is None
    assert topology.queue_names == ("mail",)
    assert topology.exchange("events") == _EVENTS
    assert topology.exchange("amq.topic") is not None
    assert topology.exchange("nowhere") is None
    assert pickle.loads(pickle.dumps(topology)) == topology


def test_the_order_of_members_does_not_matter() -> None:
    one = Topology(queues=(_MAIL, Queue("log")))
    other = Topology(queues=(Queue("log"), _MAIL))

    assert one == other
    assert hash(one) == hash(other)
    assert one != Topology()


def test_an_unknown_exchange_is_named_with_the_known_ones() -> None:
    (fault,) = _faults(exchanges=(_EVENTS,), queues=(_MAIL,), bindings=(Binding("evens", "mail"),))

    assert "unknown exchange 'evens' (known: 'events'); add it or correct the name" in fault


def test_all_faults_are_told_at_once() -> None:
    faults = _faults(
        exchanges=(_EVENTS, Exchange("events"), Exchange("e", alternate_exchange="gone")),
        queues=(_MAIL, Queue("mail", max_length=3), Queue("x", dead_letter_exchange="dlx")),
        bindings=(
            Binding("events", "post"),
            Binding("events", "inner", destination_kind=DestinationKind.EXCHANGE),
        ),
    )

    told = "\n".join(faults)
    assert len(faults) == 6
    assert "exchange 'events' is declared twice and differently" in told
    assert (
        "queue 'mail' is declared twice and differently: Queue('mail') and Queue('mail', max_length=3)"
        in told
    )
    assert "unknown queue 'post'" in told
    assert "unknown exchange 'inner'" in told
    assert "exchange 'e': unknown alternate exchange 'gone'" in told
    assert "queue 'x': unknown dead-letter exchange 'dlx'" in told


def test_a_queue_fed_only_by_an_unfed_internal_exchange_is_unreachable() -> None:
    inner = Exchange("inner", ExchangeType.FANOUT, internal=True)

    (fault,) = _faults(exchanges=(inner,), queues=(_MAIL,), bindings=(Binding("inner", "mail"),))

    assert "queue 'mail' is unreachable: it is bound only to 'inner', internal and fed by nothing" in fault


@pytest.mark.parametrize("feeder", ["binding", "alternate", "dead letters"])
def test_an_internal_exchange_that_something_feeds_reaches_its_queues(feeder: str) -> None:
    inner = Exchange("inner", ExchangeType.FANOUT, internal=True)
    outer = Exchange("outer", alternate_exchange="inner" if feeder == "alternate" else None)
    way = Binding("outer", "inner", destination_kind=DestinationKind.EXCHANGE, routing_key="k")
    other = Queue("other", dead_letter_exchange="inner" if feeder == "dead letters" else None)

    topology = Topology(
        exchanges=(inner, outer),
        queues=(_MAIL, other),
        bindings=(Binding("inner", "mail"), *((way,) if feeder == "binding" else ())),
    )

    assert topology.queue_names == ("mail", "other")


@pytest.mark.parametrize(
    ("exchange_type", "binding", "message"),
    [
        (ExchangeType.HEADERS, Binding("e", "mail", arguments={"x-match": "any"}), "never matches"),
        (ExchangeType.HEADERS, Binding("e", "mail", arguments={"x-match": "any-with-x"}), "never matches"),
        (
            ExchangeType.HEADERS,
            Binding("e", "mail", arguments={"x-match": "one", "h": 1}),
            "expected one of all, any",
        ),
        (
            ExchangeType.CONSISTENT_HASH,
            Binding("e", "mail", routing_key="0"),
            "weight, a number of at least 1",
        ),
        (
            ExchangeType.CONSISTENT_HASH,
            Binding("e", "mail", routing_key="k"),
            "weight, a number of at least 1",
        ),
    ],
)
def test_a_binding_that_cannot_work_is_a_fault(
    exchange_type: ExchangeType, binding: Binding, message: str
) -> None:
    (fault,) = _faults(exchanges=(Exchange("e", exchange_type),), queues=(_MAIL,), bindings=(binding,))

    assert message in fault


def test_dead_letters_to_a_queue_that_is_not_there_are_a_fault() -> None:
    (fault,) = _faults(queues=(Queue("q", dead_letter_exchange="", dead_letter_routing_key="q.dead"),))

    assert "dead letters are dropped, as the default exchange takes key 'q.dead' to no queue" in fault


def test_dead_letters_that_headers_decide_about_are_left_alone() -> None:
    queue = Queue("q", dead_letter_exchange="amq.headers", dead_letter_routing_key="k")

    assert Topology(queues=(queue,)).queue_names == ("q",)


def test_a_circle_of_queues_that_dead_letter_by_themselves_is_a_fault() -> None:
    """Row U042."""
    work = Queue("work", dead_letter_exchange="", dead_letter_routing_key="retry")
    retry = Queue("retry", dead_letter_exchange="", dead_letter_routing_key="work", message_ttl=30)

    (fault,) = _faults(queues=(work, retry))

    assert "in a circle, 'work' -> 'retry' -> 'work'" in fault
    assert "dead-letter one of them to a queue outside" in fault


def test_a_circle_that_needs_a_consumers_rejection_is_allowed() -> None:
    work = Queue("work", type=QueueType.CLASSIC, dead_letter_exchange="", dead_letter_routing_key="retry")
    retry = Queue("retry", dead_letter_exchange="", dead_letter_routing_key="work", message_ttl=30)

    assert Topology(queues=(work, retry)).queue_names == ("work", "retry")


def test_a_quorum_queue_whose_delivery_limit_is_in_effect_none_needs_a_rejection_too() -> None:
    work = Queue("work", dead_letter_exchange="", dead_letter_routing_key="retry", delivery_limit=2**31 - 1)
    retry = Queue("retry", dead_letter_exchange="", dead_letter_routing_key="work", message_ttl=30)

    assert Topology(queues=(work, retry)).queue_names == ("work", "retry")


def test_a_queue_that_dead_letters_to_itself_by_the_usual_key_is_a_circle() -> None:
    (by_name,) = _faults(queues=(Queue("q", dead_letter_exchange=""),))
    (by_binding,) = _faults(
        exchanges=(_EVENTS,),
        queues=(Queue("q", dead_letter_exchange="events"),),
        bindings=(Binding("events", "q", routing_key="a.b"),),
    )

    assert "'q' -> 'q'" in by_name
    assert "'q' -> 'q'" in by_binding


def test_merging_keeps_what_both_hold_once() -> None:
    one = Topology(exchanges=(_EVENTS,), queues=(_MAIL,), bindings=(Binding("events", "mail"),))
    other = Topology(exchanges=(_EVENTS,), queues=(Queue("log"),))

    merged = one.merged(other)

    assert merged.queue_names == ("mail", "log")
    assert merged.exchanges == (_EVENTS,)
    assert merged.bindings == (Binding("events", "mail"),)


def test_merging_what_clashes_is_an_error() -> None:
    with pytest.raises(TopologyError, match="queue 'mail' is declared twice"):
        Topology(queues=(_MAIL,)).merged(Topology(queues=(Queue("mail", type=QueueType.CLASSIC),)))


def test_different_consumer_arguments_for_one_queue_clash() -> None:
    (fault,) = _faults(queues=(_MAIL, Queue("mail", consumer_arguments={"x-priority": 3})))

    assert "different consumer_arguments" in fault
