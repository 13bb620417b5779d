"""What no binding takes: an error at the caller, or a catcher behind an alternate exchange."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from amqp_routing import Binding, Exchange, ExchangeType, Queue
from amqp_tasks import App
from amqp_tasks.errors import UnroutableError
from support import RawClient


def test_what_no_binding_takes_is_caught_by_an_alternate_exchange(
    make_app: Callable[..., App], raw_client: RawClient
) -> None:
    """Row B042."""
    parts = [
        Exchange("events", ExchangeType.TOPIC, alternate_exchange="rest"),
        Exchange("rest", ExchangeType.FANOUT),
        Queue("mail"),
        Queue("unrouted"),
        Binding("events", "mail", routing_key="mail.#"),
        Binding("rest", "unrouted"),
    ]
    app = make_app(task_queues=parts)

    app.send_task("t", exchange="events", routing_key="mail.sent", ignore_result=True)
    app.send_task("t", exchange="events", routing_key="typo", ignore_result=True)

    assert (raw_client.depth("mail"), raw_client.depth("unrouted")) == (1, 1)


def test_without_one_the_caller_is_told(make_app: Callable[..., App]) -> None:
    """Row U030."""
    app = make_app(
        task_queues=[
            Exchange("events", ExchangeType.TOPIC), Queue("mail"), Binding("events", "mail", routing_key="mail.#"),
        ]
    )  # fmt: skip

    with pytest.raises(UnroutableError, match="typo"):
        app.send_task("t", exchange="events", routing_key="typo", ignore_result=True)
