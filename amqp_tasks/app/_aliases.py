"""How the fields of models are called in messages, where they have aliases.

An argument goes by the aliases, as they are what a model reads by itself, in a stock Celery worker too. Where a field is
written under another name than those it is read by (`validation_alias`, `serialization_alias`, a path), all go by their
names, which our workers read as well. A result goes by the names, as `model_dump` has it, unless a model cannot be read by them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

__all__ = ("argument_by_alias", "result_by_alias")

Schema = Mapping[str, Any]
"""A part of a core schema of pydantic's."""
_Field = tuple[str, Schema]
_VALUES = frozenset({"default", "metadata"})
"""Keys of a schema that hold what is no schema."""


def argument_by_alias(schema: Schema) -> bool | None:
    """Whether aliases say how the fields of an argument are called; None: there are no aliases."""
    aliased = [field for field in _fields(schema) if _is_aliased(field[1])]
    return all(map(_is_read_as_written, aliased)) if aliased else None


def result_by_alias(schema: Schema) -> bool | None:
    """Whether aliases say how the fields of a result are called; None: as the models are configured, else by names."""
    if argument_by_alias(schema) is not True:
        return argument_by_alias(schema)
    has_own_init = any(part.get("custom_init") for part in _parts(schema))
    return True if has_own_init or any(map(_is_ambiguous, _models(schema))) else None


def _is_aliased(field: Schema) -> bool:
    return field.get("validation_alias") is not None or field.get("serialization_alias") is not None


def _is_ambiguous(model: Mapping[str, Schema]) -> bool:
    """Whether an alias is the name of another field, which would be taken for it."""
    return any(
        _read_as(name, field.get("validation_alias")) & (model.keys() - {name})
        for name, field in model.items()
    )


def _is_read_as_written(field: _Field) -> bool:
    name, schema = field
    written = schema.get("serialization_alias") or name
    return written in _read_as(name, schema.get("validation_alias"))


def _read_as(name: str, alias: Any) -> set[str]:
    """The keys that a field is read from by itself: a text, or choices of paths, or one path."""
    if alias is None:
        return {name}
    if isinstance(alias, str):
        return {alias}
    paths = cast("list[list[str]]", alias if isinstance(alias[0], list) else [alias])
    return {path[0] for path in paths if len(path) == 1}


def _fields(schema: Schema) -> Iterator[_Field]:
    return (field for model in _models(schema) for field in model.items())


def _models(schema: Schema) -> Iterator[Mapping[str, Schema]]:
    """The fields by name of each model, dataclass and typed dict in a schema."""
    for part in _parts(schema):
        if part.get("type") in ("model-fields", "typed-dict"):
            yield part["fields"]
        elif part.get("type") == "dataclass-args":
            yield {field["name"]: field for field in part["fields"]}


def _parts(schema: object) -> Iterator[Schema]:
    if isinstance(schema, Mapping):
        part = cast("Schema", schema)
        yield part
        for key, inner in part.items():
            if key not in _VALUES:
                yield from _parts(inner)
    elif isinstance(schema, Sequence) and not isinstance(schema, str):
        for inner in cast("Sequence[object]", schema):
            yield from _parts(inner)
