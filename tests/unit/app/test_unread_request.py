"""The request of a received message: made at the first look, and a plain one from then on."""

from __future__ import annotations

import copy
import dataclasses
import pickle
from collections.abc import Callable

import pytest

from amqp_tasks.app._request import Request, UnreadRequest, arguments_of


def _told() -> Request:
    return Request(id="1", task="add", retries=2, headers={"own": "header"})


def _unread() -> Request:
    unread = UnreadRequest(_told)
    unread.args, unread.kwargs = (1, 2), {"to": 3}
    return unread


def test_nothing_is_made_before_somebody_looks() -> None:
    made: list[Request] = []

    def make() -> Request:
        made.append(_told())
        return made[-1]

    request = UnreadRequest(make)
    request.args, request.kwargs = (1, 2), {}
    assert arguments_of(request) == ((1, 2), {})
    assert not made

    assert (request.id, request.args, request.retries) == ("1", (1, 2), 2)
    assert len(made) == 1


@pytest.mark.parametrize(
    "look",
    [
        lambda request: request,
        copy.copy,
        copy.deepcopy,
        dataclasses.replace,
        lambda request: pickle.loads(pickle.dumps(request)),
        lambda request: Request(**vars(request)),
        lambda request: Request(**dataclasses.asdict(request)),
    ],
)
def test_it_is_seen_as_a_plain_request(look: Callable[[Request], Request]) -> None:
    plain = dataclasses.replace(_told(), args=(1, 2), kwargs={"to": 3})

    seen = look(_unread())

    assert repr(seen) == repr(plain)
    assert seen == plain
    assert type(seen) is Request


def test_it_can_be_reduced_by_its_class() -> None:
    request = _unread()

    reduced = type(request).__reduce_ex__(request, 4)

    assert (reduced[1], reduced[2]) == ((Request,), vars(request))
