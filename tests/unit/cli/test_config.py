"""What `amqp-tasks config show` shows, and refuses."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

from amqp_tasks import App
from amqp_tasks.cli import ExitCode, main


@pytest.mark.parametrize(
    ("annotations", "said"),
    [
        ({"shop.add": {"prioritty": 1}}, "task_annotations: unknown option of task 'shop.add': 'prioritty'"),
        ({"*": {"rate_limit": "often"}}, "task_annotations, '*': option 'rate_limit' must be"),
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


def test_modules_of_include_are_imported_as_a_worker_does(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    app = App("shop", broker="amqp://nobody.invalid//", include=["shop_mail"])
    monkeypatch.setitem(sys.modules, "shop_app", ModuleType("shop_app"))
    monkeypatch.setattr("shop_app.app", app, raising=False)
    (tmp_path / "shop_mail.py").write_text("from shop_app import app\napp.conf.task_default_priority = 7\n")
    monkeypatch.syspath_prepend(tmp_path)

    assert main(["config", "show", "--json"], app=app) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["task_default_priority"]["value"] == 7


def test_a_module_of_include_that_does_not_exist_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    app = App("shop", broker="amqp://nobody.invalid//", include=["no_such_module_of_the_shop"])

    assert main(["config", "show"], app=app) == ExitCode.USAGE
    assert "no_such_module_of_the_shop" in capsys.readouterr().err
