"""What `amqp-tasks config show` refuses."""

from __future__ import annotations

import pytest

from amqp_tasks import App
from amqp_tasks.cli import ExitCode, main


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"shop.add": {"prioritty": 1}}, "unknown option of task 'shop.add': 'prioritty'"),
        ({"*": {"rate_limit": "often"}}, "option of task 'shop.add': 'rate_limit' must be"),
        ({"*": 3}, "task_annotations: task 'shop.add' gets 3"),
        ([3], "task_annotations: 3 is no mapping"),
    ],
)
def test_annotations_that_no_task_can_have_are_refused(
    annotations: object, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = App("shop", broker="amqp://nobody.invalid//", task_annotations=annotations)

    @app.task(name="shop.add")
    def add(x: int) -> int:
        return x

    assert main(["config", "show"], app=app) == ExitCode.USAGE
    assert said in capsys.readouterr().err
