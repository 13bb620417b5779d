"""Cumulative settlements against a model of the broker."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pika import frame

from amqp_tasks.transport import Settlement
from amqp_tasks.transport.rabbitmq._settling import SettleLedger


class _BrokerModel:
    """What a broker does with acks: `multiple` settles every open tag up to the given one."""

    def __init__(self, count: int) -> None:
        self.open = set(range(1, count + 1))
        self.settled: dict[int, Settlement] = {}

    def take(self, data: bytes) -> None:
        method = frame.decode_frame(data)[1].method  # type: ignore[union-attr]
        if method.NAME == "Basic.Ack":
            how = Settlement.ACK
        elif method.NAME == "Basic.Reject":
            assert method.requeue
            self.open.remove(method.delivery_tag)
            self.settled[method.delivery_tag] = Settlement.RETURN
            return
        else:
            how = Settlement.REQUEUE if method.requeue else Settlement.DROP
        tags = (
            {tag for tag in self.open if tag <= method.delivery_tag}
            if method.multiple
            else {method.delivery_tag}
        )
        assert tags <= self.open, "an unknown delivery tag closes the channel"
        assert tags
        self.open -= tags
        self.settled.update(dict.fromkeys(tags, how))


@given(st.lists(st.tuples(st.sampled_from(list(Settlement)), st.integers(0, 3)), max_size=40), st.randoms())
def test_every_settlement_reaches_the_broker_once_and_as_it_was_meant(
    plan: list[tuple[Settlement, int]], rng: object
) -> None:
    tags = list(range(1, len(plan) + 1))
    rng.shuffle(tags)  # type: ignore[attr-defined]
    model, ledger = _BrokerModel(len(plan)), SettleLedger(1)
    wanted = {tag: plan[tag - 1][0] for tag in tags}
    bunch: dict[int, Settlement] = {}

    for tag in tags:
        bunch[tag] = wanted[tag]
        if plan[tag - 1][1] == 0:
            for data in ledger.frames(bunch):
                model.take(data)
            bunch = {}
    for data in ledger.frames(bunch):
        model.take(data)

    assert model.settled == wanted
    assert not model.open


@given(st.sets(st.integers(1, 60), max_size=4), st.integers(4, 12), st.integers(1, 5))
def test_a_delivery_that_stays_open_makes_nothing_grow(kept: set[int], limit: int, bunch: int) -> None:
    count = 400
    model, ledger = _BrokerModel(count), SettleLedger(1)
    ledger.MAX_ABOVE = limit
    others = [tag for tag in range(1, count + 1) if tag not in kept]
    most = 0

    for start in range(0, len(others), bunch):
        for data in ledger.frames(dict.fromkeys(others[start : start + bunch], Settlement.ACK)):
            model.take(data)
        most = max(most, ledger.remembered)
    assert model.open == kept
    for tag in sorted(kept):
        for data in ledger.frames({tag: Settlement.REQUEUE}):
            model.take(data)

    assert most <= limit + len(kept)
    assert not model.open
    assert {tag for tag, how in model.settled.items() if how is Settlement.REQUEUE} == kept


@given(st.integers(1, 200))
def test_what_is_settled_in_order_takes_one_frame(count: int) -> None:
    frames = SettleLedger(1).frames(dict.fromkeys(range(1, count + 1), Settlement.ACK))

    assert len(frames) == 1
