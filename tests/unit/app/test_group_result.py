"""What a group's results come to, and what they cannot do, as there is no store (P082)."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks import App, GroupResult, group
from amqp_tasks.errors import ConfigurationError, TaskRevokedError
from amqp_tasks.message import new_task_id
from support.apps import add_workflow_tasks
from support.inside import running


def test_revoking_a_group_revokes_the_members_of_groups_in_it() -> None:
    with App("revoking", broker=f"memory://{new_task_id()}/") as app:
        add_workflow_tasks(app)
        add = app.tasks["add"]
        result: Any = group(add.s(1, 1) | group(add.s(1), add.s(2)), add.s(3, 3)).delay()

        result.revoke()

        with running(app, pool="threads", concurrency=2):
            (one, two), three = result.get(timeout=10, propagate=False)
    assert [type(each) for each in (one, two, three)] == [TaskRevokedError] * 3


def test_what_needs_a_result_store_says_so_and_what_to_do() -> None:
    result = GroupResult[int]("g-1", [])

    for call in (result.save, result.delete, GroupResult.restore):
        with pytest.raises(
            ConfigurationError, match=f"GroupResult.{call.__name__} needs a result store.*Keep the"
        ):
            call()
