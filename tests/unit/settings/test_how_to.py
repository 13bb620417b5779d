"""The how-to page's code runs and its messages are the real ones."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from amqp_tasks.errors import SettingsError
from amqp_tasks.settings import Conf

PAGE = (Path(__file__).parents[3] / "docs" / "how-to" / "configure.md").read_text(encoding="utf-8")


def _blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("code", _blocks("python"))
def test_code_of_the_page_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    exec(compile(code, "configure.md", "exec"), {"__name__": "configure"})


def test_config_module_of_the_page_is_valid() -> None:
    module = next(code for code in _blocks("python") if code.startswith("# celeryconfig.py"))
    names: dict[str, object] = {}
    exec(compile(module, "celeryconfig.py", "exec"), names)
    conf = Conf(environ={})
    conf.config_from_object({name: names[name] for name in ("broker_url", "result_expires", "task_routes")})

    assert conf.result_expires == 3600.0


def test_environment_of_the_page_is_valid() -> None:
    environ = dict(re.findall(r"^export (\w+)='?(.*?)'?$", _blocks("sh")[0], flags=re.MULTILINE))
    environ["AMQP_TASKS_BROKER_URL"] = environ["AMQP_TASKS_BROKER_URL"].replace("…", "password")

    settings = Conf(environ=environ).settings()

    assert settings.app.imports == ("shop.mail", "shop.orders")
    assert settings.worker.concurrency == 8
    assert settings.task.routes == {"shop.mail.*": {"queue": "lopri"}}
    assert settings.broker.url[0].vhost == "shop"


def test_faults_on_the_page_are_the_real_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "celeryconfig.py").write_text("task_serialiser = 'json'\n")
    monkeypatch.syspath_prepend(tmp_path)
    # A first import puts it in; what was there before comes back at the end.
    monkeypatch.setitem(sys.modules, "celeryconfig", ModuleType("celeryconfig"))
    del sys.modules["celeryconfig"]
    conf = Conf(environ={"AMQP_TASKS_WORKER_CONCURRENCY": "many"}, warn_message_bytes=20_000_000)
    conf.config_from_object("celeryconfig")

    with pytest.raises(SettingsError) as caught:
        conf.settings()

    assert list(caught.value.faults) == _blocks("text")[0].splitlines()
