"""What a task may tell of its progress (P049)."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks import App, Task


@pytest.mark.parametrize("told", [("x", 5), (None, None), (1, "y"), (1, 5, 7), (1, 5, None)])
def test_progress_that_nobody_could_read_is_an_error_of_the_task_that_tells_it(told: tuple[Any, ...]) -> None:
    with App("telling", broker="memory://") as app:

        @app.task(name="telling", bind=True)
        def telling(self: Task[..., Any]) -> None:
            self.progress(*told)

        with pytest.raises(
            TypeError, match=r"progress takes done \(a number\), total .* and note \(text\), got \("
        ):
            telling.apply().get()


def test_numbers_of_any_kind_that_are_read_again_can_be_told() -> None:
    with App("telling", broker="memory://") as app:

        @app.task(name="telling", bind=True)
        def telling(self: Task[..., Any]) -> str:
            self.progress(1)
            self.progress(0.5, 2)
            self.progress(True, None, "half")
            self.progress(float("nan"), 10**400)
            return "told"

        assert telling.apply().get() == "told"
