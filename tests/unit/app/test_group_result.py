"""What a group's results cannot do, as there is no store (P082)."""

from __future__ import annotations

import pytest

from amqp_tasks import GroupResult
from amqp_tasks.errors import ConfigurationError


def test_what_needs_a_result_store_says_so_and_what_to_do() -> None:
    result = GroupResult[int]("g-1", [])

    for call in (result.save, result.delete, GroupResult.restore):
        with pytest.raises(
            ConfigurationError, match=f"GroupResult.{call.__name__} needs a result store.*Keep the"
        ):
            call()
