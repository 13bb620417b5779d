"""Numbers of channels: the first is the publisher's or the consumer's, also while it has none."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from pika.exceptions import NoFreeChannels

from amqp_tasks.transport.rabbitmq._fastwire import FastConnection


class _Numbers(FastConnection):
    def __init__(self, taken: set[int], channel_max: int) -> None:
        self._channels = dict.fromkeys(taken)
        self.params = SimpleNamespace(channel_max=channel_max)


def number(taken: set[int], channel_max: int = 0) -> int:
    return _Numbers(taken, channel_max)._next_channel_number()


def test_an_operation_never_takes_the_number_of_a_channel_that_is_opened_anew() -> None:
    assert number(set()) == 2
    assert number({1, 2, 4}) == 3


def test_no_free_number_is_said() -> None:
    assert number({1}, channel_max=2) == 2
    with pytest.raises(NoFreeChannels):
        number({1, 2}, channel_max=2)
