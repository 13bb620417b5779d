"""Settings: where they come from, what they may be, and addresses that hide their passwords.

`Conf` gathers values from all sources, `Settings` holds them validated. Importing this package imports neither
pydantic nor the models; the first validation does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqp_tasks.settings._conf import Conf

if TYPE_CHECKING:
    from amqp_tasks.settings._app import AppSettings
    from amqp_tasks.settings._broker import BrokerSettings, TlsOptions
    from amqp_tasks.settings._cpus import usable_cpus
    from amqp_tasks.settings._models import Settings
    from amqp_tasks.settings._result import ResultSettings
    from amqp_tasks.settings._secrets import Secret, mask_secrets
    from amqp_tasks.settings._security import SecuritySettings, SigningKey
    from amqp_tasks.settings._sources import Level, Origin
    from amqp_tasks.settings._task import PublishRetryPolicy, TaskSettings
    from amqp_tasks.settings._url import BrokerUrl, ResultUrl
    from amqp_tasks.settings._worker import WorkerSettings

__all__ = (
    "AppSettings",
    "BrokerSettings",
    "BrokerUrl",
    "Conf",
    "Level",
    "Origin",
    "PublishRetryPolicy",
    "ResultSettings",
    "ResultUrl",
    "Secret",
    "SecuritySettings",
    "Settings",
    "SigningKey",
    "TaskSettings",
    "TlsOptions",
    "WorkerSettings",
    "mask_secrets",
    "usable_cpus",
)

_LAZY = {
    "AppSettings": "_app",
    "BrokerSettings": "_broker",
    "BrokerUrl": "_url",
    "Level": "_sources",
    "Origin": "_sources",
    "PublishRetryPolicy": "_task",
    "ResultSettings": "_result",
    "ResultUrl": "_url",
    "Secret": "_secrets",
    "SecuritySettings": "_security",
    "Settings": "_models",
    "SigningKey": "_security",
    "TaskSettings": "_task",
    "TlsOptions": "_broker",
    "WorkerSettings": "_worker",
    "mask_secrets": "_secrets",
    "usable_cpus": "_cpus",
}
"""Names by their modules, each imported when it is asked for: a producer that just defines tasks needs `Conf` only."""


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    return value
