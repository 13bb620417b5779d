"""The queues of an app, and what is said of one that it does not have."""

from __future__ import annotations

import pytest

from amqp_tasks import App
from amqp_tasks.errors import UnknownQueue


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
