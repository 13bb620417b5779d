"""The queues of an app, and what is said of one that it does not have."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks import App
from amqp_tasks.errors import ConfigurationError, UnknownQueue


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("hiprio", "hipri, lopri, reports, default", "did you mean 'hipri'?"),
        ("report", "reports, lopri, hipri, default", "did you mean 'reports'?"),
        ("zzz", "reports, lopri, hipri, default", "add it to task_queues, or set task_create_missing_queues=True"),
        ("routed", "reports, lopri, hipri, default", "task_routes name it, but it is not declared: add it to task_queues"),
    ],
)  # fmt: skip
def test_an_unknown_queue_is_answered_with_all_there_are_the_nearest_first(
    name: str, known: str, hint: str
) -> None:
    app = App(
        "proj",
        task_queues=["reports", "lopri", "hipri"],
        task_routes={"mail": "routed"},
        task_create_missing_queues=False,
    )

    with pytest.raises(UnknownQueue) as caught:
        app.topology_for([name])

    assert caught.value.known == tuple(known.split(", "))
    assert str(caught.value).startswith(f"unknown queue {name!r} (known: {known}); {hint}")


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ([5], "task_queues: 5 is no queue; expected a name"),
        ([None], "task_queues: None is no queue; expected a name"),
        ({"mail": 5}, "task_queues['mail']: 5 is neither a mapping of options nor a Queue"),
        ({"mail": {"typ": "classic"}}, "task_queues['mail']: unknown option 'typ', did you mean 'type'?"),
    ],
)
def test_what_is_no_queue_is_named(queues: Any, said: str) -> None:
    app = App("proj", task_queues=queues)

    with pytest.raises(ConfigurationError) as caught:
        _ = app.topology

    assert str(caught.value).startswith(said)
