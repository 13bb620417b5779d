"""Where the demo's broker comes from when none is given."""

from __future__ import annotations

import pytest

from amqp_tasks import App
from amqp_tasks.cli.demo import brokers
from amqp_tasks.errors import BrokerConnectionError


@pytest.mark.timeout(300)
def test_the_demo_starts_a_broker_where_none_is_and_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(brokers, "_LOCAL", "amqp://guest:guest@127.0.0.1:1//")
    said: list[str] = []

    with brokers.find_broker(None, said.append) as broker:
        with App(broker=broker.url) as app:
            app.transport.open(timeout=5.0)
        assert said or broker.is_embedded

    if not broker.is_embedded:
        with App(broker=broker.url) as app, pytest.raises(BrokerConnectionError):
            app.transport.open(timeout=1.0)


def test_a_given_broker_is_the_only_one_that_is_tried() -> None:
    said: list[str] = []
    nowhere = "amqp://guest:guest@127.0.0.1:1//"

    with pytest.raises(BrokerConnectionError), brokers.find_broker(nowhere, said.append):
        pytest.fail("nothing answers there")

    assert said == []
