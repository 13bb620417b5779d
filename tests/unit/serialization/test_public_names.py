"""What the two packages export."""

from __future__ import annotations

from types import ModuleType

import pytest

from amqp_tasks import message, serialization


@pytest.mark.parametrize("package", [message, serialization])
def test_all_names_what_is_there(package: ModuleType) -> None:
    there = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and not isinstance(value, ModuleType)
    }

    assert set(package.__all__) == there
    assert len(set(package.__all__)) == len(package.__all__)
