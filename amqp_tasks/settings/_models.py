"""All settings together. Imports pydantic: nothing imports this module before the first validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import Field
from pydantic.fields import FieldInfo

from amqp_tasks.settings._app import AppSettings
from amqp_tasks.settings._base import Section
from amqp_tasks.settings._broker import BrokerSettings
from amqp_tasks.settings._result import ResultSettings
from amqp_tasks.settings._security import SecuritySettings
from amqp_tasks.settings._task import TaskSettings
from amqp_tasks.settings._worker import WorkerSettings

__all__ = ("CONTAINERS", "FIELDS", "SECTIONS", "SettingField", "Settings", "section_values")


class Settings(Section):
    """Every setting, validated; one part per concern. Made by `Conf.settings()`.

    A setting called `task_routes` in configuration is `settings.task.routes` here; those without one of the five
    prefixes are in `settings.app`.

    Thread safety: immutable.
    """

    app: AppSettings = Field(default_factory=AppSettings, description="The application as a whole.")
    broker: BrokerSettings = Field(
        default_factory=BrokerSettings, description="The connection to the broker."
    )
    task: TaskSettings = Field(default_factory=TaskSettings, description="Tasks.")
    result: ResultSettings = Field(default_factory=ResultSettings, description="Results.")
    worker: WorkerSettings = Field(default_factory=WorkerSettings, description="Worker nodes.")
    security: SecuritySettings = Field(default_factory=SecuritySettings, description="Signed messages.")

    def get(self, name: str) -> Any:
        """The value of a setting by its flat name, e.g. `task_routes`.

        Raises:
            KeyError: there is no setting of that name.
        """
        field = FIELDS[name]
        return getattr(getattr(self, field.section), field.name)


@dataclass(frozen=True, slots=True)
class SettingField:
    """Where a flat name lives and what is known about it."""

    flat_name: str
    section: str
    name: str
    info: FieldInfo


SECTIONS: dict[str, type[Section]] = {
    "app": AppSettings,
    "broker": BrokerSettings,
    "task": TaskSettings,
    "result": ResultSettings,
    "worker": WorkerSettings,
    "security": SecuritySettings,
}


def _flat_name(section: str, name: str) -> str:
    return name if section == "app" else f"{section}_{name}"


FIELDS: dict[str, SettingField] = {
    _flat_name(section, name): SettingField(_flat_name(section, name), section, name, info)
    for section, model in SECTIONS.items()
    for name, info in model.model_fields.items()
}
"""Every setting by its flat name, in the order of the reference."""


def _is_container(annotation: Any) -> bool:
    if annotation is Any:
        return True  # lists and mappings that validators of their own read
    if get_origin(annotation) in (Union, UnionType):
        return any(map(_is_container, get_args(annotation)))
    is_model = isinstance(annotation, type) and issubclass(annotation, Section)
    return is_model or get_origin(annotation) in (tuple, Mapping)


CONTAINERS = frozenset(name for name, field in FIELDS.items() if _is_container(field.info.annotation))
"""Settings that are lists or mappings."""


def section_values(values: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Flat names and their values, sorted into sections; all names must be known."""
    sections: dict[str, dict[str, Any]] = {name: {} for name in SECTIONS}
    for flat_name, value in values.items():
        field = FIELDS[flat_name]
        sections[field.section][field.name] = value
    return sections
