"""Options of a signature: those of a call, and what clients write beside them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, cast

from amqp_tasks.app._options import CALL_OPTIONS, CallOptions, check_call_options, check_names
from amqp_tasks.errors import ConfigurationError

__all__ = ("call_options", "check_option_names")

_OF_CELERY = frozenset(
    {
        "chain", "chord", "group_id", "group_index", "origin", "parent_id", "replaced_task_nesting", "retries", "root_id",
        "stamped_headers",
    }
)  # fmt: skip
"""What Celery itself writes into its signatures, when it freezes them or makes one of a request. See: `Signature.freeze`,
`Context.as_execution_options`."""


def check_option_names(options: Mapping[str, Any]) -> None:
    """Refuse what is no option of a signature, for whoever writes it. What is given as None is not given.

    Raises:
        ConfigurationError: an unknown option, with the nearest name.
    """
    if options.keys() <= CALL_OPTIONS:
        return
    stamps = _stamps_in(options) if options.get("stamped_headers") else {}
    unknown = options.keys() - CALL_OPTIONS - _OF_CELERY - stamps.keys()
    check_names({name: options[name] for name in unknown if options[name] is not None})


def call_options(options: Mapping[str, Any]) -> CallOptions:
    """Options of a signature as a call takes them; times that came as text are times again. What only other systems know
    is left out.

    Raises:
        ConfigurationError: a value that cannot be.
    """
    found = {name: value for name, value in options.items() if name in CALL_OPTIONS}
    if options.get("stamped_headers"):
        found["stamps"] = {**_stamps_in(options), **(options.get("stamps") or {})}
    for name in ("eta", "expires"):
        if isinstance(found.get(name), str):
            try:
                found[name] = datetime.fromisoformat(found[name])
            except ValueError as exc:
                raise ConfigurationError(
                    f"option {name!r} of a signature is no time: {found[name]!r:.60}"
                ) from exc
    check_call_options(found)
    return cast(CallOptions, found)


def _stamps_in(options: Mapping[str, Any]) -> dict[str, Any]:
    """The stamps of a signature, which stand among its options as Celery has it."""
    names: Any = options["stamped_headers"]
    if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):  # pyright: ignore[reportUnknownVariableType]
        raise ConfigurationError(f"option 'stamped_headers' of a signature must be names, got {names!r:.60}")
    stamps = {str(name): options[name] for name in names if name in options}  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    if clash := stamps.keys() & CALL_OPTIONS:
        raise ConfigurationError(f"stamp {min(clash)!r} has the name of an option: give it another")
    return stamps
