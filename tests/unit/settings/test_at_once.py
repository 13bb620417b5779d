"""What is called right without the models is right for the models too."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqp_tasks.settings._at_once import is_right
from amqp_tasks.settings._gather import check_written

_URLS = st.builds(
    "{}{}{}{}{}".format,
    st.sampled_from(("amqp://", "amqps://", "pyamqp://", "memory://", "sqs://", "", " amqp://")),
    st.sampled_from(("", "me:pw@", "me@", "a%2fb:c@", ":@", "@", "[")),
    st.sampled_from(("", "mq", "mq:5672", "mq:port", "[::1]:5672", "mq:99999", "a;amqp://b", "a,b", "mq ")),
    st.sampled_from(("", "/", "//", "/v", "/v/w", "/%2f")),
    st.sampled_from(
        ("", "?heartbeat=3", "?heartbeat=0", "?heartbeat=x", "?connection_timeout=nan", "?ssl=1", "?")
    ),
)
_WRITES = st.fixed_dictionaries(
    {},
    optional={
        "broker_url": st.one_of(_URLS, st.text("amqp:/@;,[]%? 0é"), st.none(), st.lists(_URLS), st.binary()),
        "result_backend": st.sampled_from(("rpc://", "rpc", "disabled", "redis://", "", 3, None, ["rpc://"])),
        "include": st.sampled_from((["a"], ("a", "b"), [], "a,b", [1], 1, None, {"a"})),
        "task_serialiser": st.just("json"),
        "task_acks_late": st.booleans(),
    },
)


@given(_WRITES)
def test_nothing_is_called_right_that_the_models_refuse(written: dict[str, object]) -> None:
    if is_right(written):
        assert check_written(written).faults == ()


@pytest.mark.parametrize(
    "written",
    [
        {},
        {"broker_url": "amqp://me:pw@mq:5673/v?heartbeat=30"},
        {"broker_url": "memory://", "result_backend": "rpc://", "include": ["proj.tasks"]},
        {"result_backend": "disabled", "include": ("a", "b")},
    ],
)
def test_what_most_programs_write_needs_no_models(written: dict[str, object]) -> None:
    assert is_right(written)


@pytest.mark.parametrize(
    "written",
    [
        {"broker_url": "amqp://a;amqp://b"},
        {"broker_url": "sqs://mq"},
        {"broker_url": ["amqp://a"]},
        {"result_backend": "redis://mq"},
        {"include": [1]},
        {"broker_url": "amqp://a", "task_acks_late": True},
    ],
)
def test_all_else_is_left_to_the_models(written: dict[str, object]) -> None:
    assert not is_right(written)
