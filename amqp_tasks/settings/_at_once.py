"""Writes that are known to be right before the models of all settings, and pydantic with them, are loaded.

A program that only defines its tasks writes little more than its broker's address; loading the models would take longer
than all the rest of its start.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import cast

__all__ = ("is_right",)


def is_right(written: Mapping[str, object]) -> bool:
    """Whether one write surely has no fault; False: only the models can tell.

    Args:
        written: settings by name.
    """
    # Values stay out of the variables of this frame: a traceback with locals would show them.
    return all(name in _CHECKS and _CHECKS[name](written[name]) for name in written)


def _is_one_broker(value: object) -> bool:
    from amqp_tasks.errors import ConfigurationError
    from amqp_tasks.settings._secrets import Secret
    from amqp_tasks.settings._url import BrokerUrl

    if not isinstance(value, str) or ";" in value or "," in value:
        return False
    url = Secret(value)
    # A refused URL must not be shown by a traceback with locals.
    del value
    try:
        BrokerUrl.parse(url.get_secret_value())
    except ConfigurationError:
        return False
    return True


def _is_list_of_names(value: object) -> bool:
    if not isinstance(value, (list, tuple)):
        return False
    return all(isinstance(name, str) for name in cast("Iterable[object]", value))


_CHECKS: Mapping[str, Callable[[object], bool]] = {
    "broker_url": _is_one_broker,
    "result_backend": lambda value: isinstance(value, str) and value in ("rpc://", "disabled"),
    "include": _is_list_of_names,
}
