"""Writes docs/reference/settings.md from the models: `python docs/_generate_settings.py`.

A unit test fails when the page differs from what this makes, so run it after each change of a setting.
"""

from __future__ import annotations

import types
import typing
from pathlib import Path

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from amqp_tasks.settings import Secret
from amqp_tasks.settings._models import FIELDS, SECTIONS
from amqp_tasks.settings._names import UNSUPPORTED, old_name
from amqp_tasks.settings._plain import plain
from amqp_tasks.settings._sources import ENVIRONMENT_PREFIX

PAGE = Path(__file__).parent / "reference" / "settings.md"
TITLES = {
    "app": "Application",
    "broker": "Broker connection",
    "task": "Tasks",
    "result": "Results",
    "worker": "Workers",
    "security": "Signed messages",
}
INTRODUCTION = """\
# Settings

<!-- Written by docs/_generate_settings.py from the models; change those. -->

Every setting with its meaning, unit, special values and default. How to set them, and which source wins, is in
[Configure an app](../how-to/configure.md). Unless said otherwise, times are seconds (a `timedelta` is understood) and
sizes are bytes. In typed code a setting such as `task_routes` is `app.settings.task.routes`.
"""
UNSUPPORTED_INTRODUCTION = """\
## Celery's settings that do not exist here

Giving one of these is a fault at start, so that nothing is left out silently. Three are accepted because they ask for
what is always so: `task_protocol=2`, `worker_enable_soft_shutdown_on_idle`, and `broker_transport_options` with nothing but `confirm_publish`.

| setting | instead |
|---|---|
"""


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        parts.append(f"## {TITLES[section]}\n")
        parts += [_entry(name) for name, field in FIELDS.items() if field.section == section]
    rows = "\n".join(f"| `{name}` | {text} |" for name, text in sorted(UNSUPPORTED.items()))
    return "\n".join(parts) + "\n" + UNSUPPORTED_INTRODUCTION + rows + "\n"


def _entry(name: str) -> str:
    info = FIELDS[name].info
    default = plain(info.get_default(call_default_factory=True), masked=True)
    return (
        f"### `{name}`\n\n{info.description}\n\n"
        f"- Type: {_type(info)}\n- Default: `{default!r}`\n"
        f"- Environment: `{ENVIRONMENT_PREFIX}{name.upper()}`\n- Old name: `{old_name(name)}`\n"
        f"{_options(info)}"
    )


def _options(info: FieldInfo) -> str:
    nested = [
        kind for kind in _parts(info.annotation) if isinstance(kind, type) and issubclass(kind, BaseModel)
    ]
    if not nested:
        return ""
    rows = "\n".join(
        f"| `{name}` | {option.description} | `{option.get_default()!r}` |"
        for name, option in nested[0].model_fields.items()
    )
    return f"\n| option | meaning | default |\n|---|---|---|\n{rows}\n"


def _parts(annotation: object) -> tuple[object, ...]:
    is_union = isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union
    return typing.get_args(annotation) if is_union else (annotation,)


def _type(info: FieldInfo) -> str:
    bounds = [
        f"{words} {getattr(item, name)}"
        for item in info.metadata
        for name, words in (("ge", "at least"), ("gt", "more than"), ("le", "at most"))
        if hasattr(item, name)
    ]
    told = " or ".join(_name(part) for part in _parts(info.annotation))
    return ", ".join([told, *bounds])


def _name(annotation: object) -> str:
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return " or ".join(_name(part) for part in _parts(arguments[0]))
    if origin is typing.Literal:
        return ", ".join(f"`{value!r}`" for value in arguments)
    if origin is tuple:
        return "list of " + _name(arguments[0])
    if origin is not None:
        return "mapping of " + " to ".join(map(_name, arguments))
    return {
        str: "text",
        int: "whole number",
        float: "number",
        bool: "`True` or `False`",
        type(None): "`None`",
        typing.Any: "see above",
        Secret: "text",
    }.get(typing.cast("type", annotation)) or _class(annotation)


def _class(annotation: object) -> str:
    name = getattr(annotation, "__name__", "")
    return {"BrokerUrl": "URL", "ResultUrl": "URL", "SigningKey": "keys"}.get(name, "mapping")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
