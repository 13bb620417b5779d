"""The reference page says what the models say."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

from amqp_tasks.settings._models import FIELDS

DOCS = Path(__file__).parents[3] / "docs"


def _generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("_generate_settings", DOCS / "_generate_settings.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_page_is_what_the_models_make() -> None:
    written = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")

    assert written == _generator().page(), "run: python docs/_generate_settings.py"


def test_page_has_every_setting_with_its_environment_name() -> None:
    written = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8")

    assert [name for name in FIELDS if f"### `{name}`\n" not in written] == []
    assert [name for name in FIELDS if f"`AMQP_TASKS_{name.upper()}`" not in written] == []
