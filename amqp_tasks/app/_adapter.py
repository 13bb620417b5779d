"""Values and their annotations through pydantic. Importing this module imports pydantic."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, ValidationError

from amqp_tasks.errors import ConfigurationError, EncodeError

__all__ = ("Adapter", "dump_model")


class Adapter:
    """One annotation's validator and serializer. `validate` raises ValueError (pydantic's ValidationError)."""

    __slots__ = ("_adapter", "_strict")

    def __init__(self, annotation: Any, *, strict: bool, task_name: str) -> None:
        """Build.

        Raises:
            ConfigurationError: pydantic has no validator for the annotation.
        """
        self._strict = strict or None
        self._adapter = _build(annotation, task_name)

    def validate(self, value: Any) -> Any:
        """The value as its type.

        Raises:
            ValueError: it does not fit.
        """
        return self._adapter.validate_python(value, strict=self._strict)

    def validate_or_keep(self, value: Any) -> Any:
        """The value as its type, or as it is when it does not fit: a result is not refused for its annotation."""
        try:
            return self._adapter.validate_python(value)
        except ValidationError:
            return value

    def dump(self, value: Any) -> Any:
        """The value as plain data; what pydantic knows no form for is left to the serializer.

        Raises:
            EncodeError: a model holds something that has no plain form.
        """
        try:
            return self._adapter.dump_python(value, mode="json", warnings=False)
        except PydanticSerializationError as exc:
            if isinstance(value, BaseModel):
                raise EncodeError(
                    f"{type(value).__qualname__} cannot be written as plain data: {exc}"
                ) from exc
            return value

    def dump_loosely(self, value: Any) -> Any:
        """Like `dump`, for a value that was not validated and may be of another type."""
        try:
            return self._adapter.dump_python(value, mode="json", warnings=False)
        except (PydanticSerializationError, AttributeError, TypeError, ValueError):
            return dump_model(value)


def _build(annotation: Any, task_name: str) -> TypeAdapter[Any]:
    try:
        try:
            return TypeAdapter(annotation, config=ConfigDict(arbitrary_types_allowed=True))
        except PydanticUserError as exc:
            # Models, dataclasses and typed dicts bring their own configuration and refuse another one.
            if exc.code != "type-adapter-config-unused":
                raise
            return TypeAdapter(annotation)
    except PydanticUserError as exc:
        raise ConfigurationError(
            f"task {task_name!r}: annotation {annotation!r} cannot be checked ({exc}); "
            "use another type, or pydantic=False on the task"
        ) from exc


def dump_model(value: Any) -> Any:
    """A model as plain data, anything else as it is.

    Raises:
        EncodeError: the model holds something that has no plain form.
    """
    if not isinstance(value, BaseModel):
        return value
    try:
        return value.model_dump(mode="json")
    except PydanticSerializationError as exc:
        raise EncodeError(f"{type(value).__qualname__} cannot be written as plain data: {exc}") from exc
