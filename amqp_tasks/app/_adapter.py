"""Values and their annotations through pydantic. Importing this module imports pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter
from pydantic.errors import PydanticUserError
from pydantic_core import PydanticSerializationError, ValidationError

from amqp_tasks.app._aliases import argument_by_alias, result_by_alias
from amqp_tasks.app._conversion import Conversion
from amqp_tasks.errors import ConfigurationError, EncodeError

__all__ = ("Adapter", "check_dump_kwargs", "dump_model")


_PLAIN_DATA: dict[str, Any] = {"mode": "json", "warnings": False}
_ANY_NAME: dict[str, Any] = {"by_alias": True, "by_name": True}


class Adapter:
    """One annotation's validator and serializer. `validate` raises ValueError (pydantic's ValidationError)."""

    __slots__ = ("_adapter", "_by_alias", "_context", "_dump_kwargs", "_strict")

    def __init__(self, annotation: Any, conversion: Conversion, *, task_name: str) -> None:
        """Build.

        Raises:
            ConfigurationError: pydantic has no validator for the annotation.
        """
        self._strict = conversion.strict or None
        self._context = dict(conversion.context)
        self._adapter = _build(annotation, task_name)
        self._by_alias = argument_by_alias(self._adapter.core_schema)
        self._dump_kwargs = {"by_alias": result_by_alias(self._adapter.core_schema), **conversion.dump_kwargs}

    def validate(self, value: Any) -> Any:
        """The value as its type.

        Raises:
            ValueError: it does not fit.
        """
        return self._adapter.validate_python(value, strict=self._strict, context=self._context, **_ANY_NAME)

    def validate_or_keep(self, value: Any) -> Any:
        """The value as its type, or as it is when it does not fit: a result is not refused for its annotation."""
        try:
            return self._adapter.validate_python(value, context=self._context, **_ANY_NAME)
        except ValidationError:
            return value

    def dump(self, value: Any) -> Any:
        """The value as plain data; what pydantic knows no form for is left to the serializer.

        Raises:
            EncodeError: a model holds something that has no plain form, or could not be read by the worker.
        """
        try:
            written = self._adapter.dump_python(value, by_alias=self._by_alias, **_PLAIN_DATA)
        except PydanticSerializationError as exc:
            if isinstance(value, BaseModel):
                raise EncodeError(
                    f"{type(value).__qualname__} cannot be written as plain data: {exc}"
                ) from exc
            return value
        if self._by_alias is False:
            self._check_readable(value, written)
        return written

    def dump_loosely(self, value: Any) -> Any:
        """Like `dump`, for a value that was not validated and may be of another type."""
        return self._dump_loosely(value, {"by_alias": self._by_alias})

    def dump_return(self, value: Any) -> Any:
        """Like `dump_loosely`, for what the task returned, as the task's `pydantic_dump_kwargs` say."""
        return self._dump_loosely(value, self._dump_kwargs)

    def _dump_loosely(self, value: Any, given: Mapping[str, Any]) -> Any:
        try:
            return self._adapter.dump_python(value, **{**_PLAIN_DATA, **given})
        except (PydanticSerializationError, AttributeError, TypeError, ValueError):
            return dump_model(value, given)

    def _check_readable(self, value: Any, written: Any) -> None:
        """By their names fields are read that have another alias for each direction, but not by an `__init__` or a
        validator of the model's own that looks for aliases."""
        try:
            self.validate(written)
        except ValidationError as exc:
            fault = exc.errors(include_url=False, include_input=False)[0]
            where = ".".join(map(str, fault["loc"]))
            raise EncodeError(
                f"{type(value).__qualname__} cannot be read back from what would be sent ({where}: {fault['msg']}): "
                "give each field one alias for both directions"
            ) from None


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


class _Sample(BaseModel):
    field: int = 0


def check_dump_kwargs(given: Mapping[str, Any], task_name: str) -> None:
    """Refuse before the run what would fail after it.

    Raises:
        ConfigurationError: `model_dump` does not take these arguments.
    """
    try:
        _Sample().model_dump(**given)
    except Exception as exc:
        raise ConfigurationError(
            f"option of task {task_name!r}: pydantic_dump_kwargs={dict(given)!r} are no arguments of model_dump(): {exc}"
        ) from exc


def dump_model(value: Any, given: Mapping[str, Any]) -> Any:
    """A model as plain data, anything else as it is.

    Args:
        value: any.
        given: further arguments of `model_dump`.

    Raises:
        EncodeError: the model holds something that has no plain form.
    """
    if not isinstance(value, BaseModel):
        return value
    arguments: dict[str, Any] = {"mode": "json", **given}
    try:
        return value.model_dump(**arguments)
    except PydanticSerializationError as exc:
        raise EncodeError(f"{type(value).__qualname__} cannot be written as plain data: {exc}") from exc
