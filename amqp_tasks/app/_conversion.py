"""What pydantic is told about the arguments and the result of a task. Importing this module does not import it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ("Conversion",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversion:
    """How values are converted.

    Attributes:
        strict: between no types.
        context: `info.context` of validators.
        dump_kwargs: arguments of `model_dump` for the result.
    """

    strict: bool = False
    context: Mapping[str, Any] = field(default_factory=dict[str, Any])
    dump_kwargs: Mapping[str, Any] = field(default_factory=dict[str, Any])
