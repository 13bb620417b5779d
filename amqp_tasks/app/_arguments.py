"""Arguments of a task: checked at the caller, coerced at the worker, by its signature and annotations.

Three kinds of parameters:

* no annotation, `Any`, `object`, a type variable: not checked;
* plain builtins (`int`, `float`, `str`, `bytes`, `bool`, `None`, `list`, `dict`) and unions of them: checked by type
  as a type checker would (an int passes for a float; nothing is converted);
* everything else (`UUID`, `datetime`, dataclasses, models, `list[int]`, `Annotated[...]`): validated and converted by
  pydantic in its lax mode. The caller sends the value as plain data, the task gets it as its type.

pydantic is imported by the first task that needs it, and by nothing else.
"""

from __future__ import annotations

import inspect
import logging
import math
import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from datetime import date, datetime, time
from decimal import Decimal
from types import NoneType
from typing import TYPE_CHECKING, Any, get_args, get_origin
from uuid import UUID

from amqp_tasks.app._conversion import Conversion
from amqp_tasks.errors import ConfigurationError, EncodeError, InvalidArguments
from amqp_tasks.message import bounded_repr
from amqp_tasks.message._printable import HIDDEN

if TYPE_CHECKING:
    from amqp_tasks.app._adapter import Adapter
    from amqp_tasks.app._task import Task

__all__ = ("UNKNOWN", "Parameters")

UNKNOWN: Any = object()
"""Stands for an argument that is not there yet, in `Parameters.check_types`."""

_log = logging.getLogger(__name__)

_PLAIN: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (float, int),
    complex: (complex, float, int),
    str: (str,),
    bytes: (bytes,),
    bool: (bool,),
    type(None): (type(None),),
    None: (type(None),),
    list: (list, tuple),
    dict: (dict,),
}
_PLAIN_CONTAINERS = {list: (Any,), dict: (str, Any)}
_SENT_AS_IS = (
    bool, int, float, str, bytes, NoneType, list, tuple, dict, datetime, date, time, Decimal, UUID,
)  # fmt: skip
"""Of these it is known how they arrive. `UNKNOWN` is none, and others may write themselves as anything (`__json__`, kombu's types), or cannot be sent."""
_UNCHECKED = frozenset({Any, object, inspect.Parameter.empty})


@dataclass(slots=True)
class _Check:
    """How one parameter is checked. Exactly one of `plain` and `adapter` is set."""

    name: str
    plain: tuple[type, ...] | None
    adapter: Adapter | None
    default: Any

    def dump(self, value: Any) -> Any:
        """The value as it is sent."""
        if self.plain is not None:
            return self._checked(value)
        assert self.adapter is not None
        if value is self.default:
            return self.adapter.dump_loosely(value)
        return self.adapter.dump(self.adapter.validate(value))

    def load(self, value: Any) -> Any:
        """The value as the task gets it."""
        if self.plain is not None:
            return self._checked(value)
        assert self.adapter is not None
        if value is None and self.default is None:
            return value
        return self.adapter.validate(value)

    def check(self, value: Any) -> None:
        """Raise what `dump` would; the value stays as it is, for it is sent by itself."""
        if value is self.default or not issubclass(type(value), _SENT_AS_IS):
            return
        if self.plain is not None:
            self._checked(value)
            return
        try:
            # Validators are users' code, and may change what they get or read it to its end.
            own = deepcopy(value)
        except Exception:  # noqa: BLE001 - what cannot be copied is checked where it is sent
            return
        self.dump(own)

    def _checked(self, value: Any) -> Any:
        assert self.plain is not None
        if isinstance(value, self.plain) or value is self.default:
            return value
        wanted = " or ".join(kind.__name__ for kind in self.plain if kind is not type(None)) or "None"
        raise ValueError(f"expected {wanted}, got {type(value).__name__}")


class Parameters:
    """Checks and conversions of one task; built once, used by callers and workers.

    Thread safety: any thread.

    Args:
        task_name: for messages.
        function: whose signature and annotations count.
        skip_first: its first parameter is the task.
        typing: False: nothing is checked.
        conversion: what pydantic is told; None: it is not asked.
    """

    def __init__(
        self,
        task_name: str,
        function: Callable[..., Any],
        *,
        skip_first: bool,
        typing: bool,
        conversion: Conversion | None,
    ) -> None:
        self._task_name = task_name
        self._is_typed = typing
        self._dump_kwargs: Mapping[str, Any] = conversion.dump_kwargs if conversion is not None else {}
        signature = inspect.signature(function)
        parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
        self._signature = signature.replace(parameters=parameters)
        self._positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        self._required = sum(p.default is p.empty for p in self._positional)
        self._needs_keywords = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._has_var_positional = any(p.kind is p.VAR_POSITIONAL for p in parameters)
        self._var_positional_name = next((p.name for p in parameters if p.kind is p.VAR_POSITIONAL), "")
        hints = _hints(function, task_name) if typing else {}
        builder = _Builder(task_name, conversion)
        self._checks = {p.name: c for p in parameters if (c := builder.check(p, hints.get(p.name, p.empty)))}
        self._by_position = [self._checks.get(p.name) for p in self._positional]
        self._var_positional = next(
            (self._checks.get(p.name) for p in parameters if p.kind is p.VAR_POSITIONAL), None
        )
        self._var_keyword = next(
            (self._checks.get(p.name) for p in parameters if p.kind is p.VAR_KEYWORD), None
        )
        self._named = {p.name: self._checks.get(p.name) for p in parameters if p.kind not in _NOT_NAMED}
        self._returns = builder.adapter(hints["return"]) if hints.get("return") is not None else None

    @classmethod
    def of_task(cls, task: Task[..., Any], function: Callable[..., Any], *, skip_first: bool) -> Parameters:
        """Built from a task's function and options.

        Raises:
            ConfigurationError: `sensitive` names something that is no parameter, or `pydantic_dump_kwargs` something that
                pydantic does not know.
        """
        built = cls(
            task.name,
            function,
            skip_first=skip_first,
            typing=task.typing,
            conversion=_conversion(task) if task.pydantic else None,
        )
        _check_sensitive(task, built._signature)
        return built

    @property
    def positional(self) -> Sequence[inspect.Parameter]:
        """The parameters that a call may give by position, in order."""
        return self._positional

    def number_free(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> float:
        """How many more arguments a call with these may be given by position; `math.inf` for any number.

        From the first parameter on that is given by name none can be given by position.
        """
        named = (at for at, p in enumerate(self._positional) if p.name in kwargs and p.kind not in _NOT_NAMED)
        end = next(named, None)
        if end is None and self._has_var_positional:
            return math.inf
        return len(self._positional[:end]) - len(args)

    def dump(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """What is sent for a call: arguments that fit, as plain data where their type is no plain builtin.

        Raises:
            InvalidArguments: they do not fit the signature or an annotation; names the parameter.
            EncodeError: a model that cannot be written as plain data.
        """
        if kwargs.__class__ is not dict:
            kwargs = dict(kwargs)  # such as a signature's, which not every serializer can write
        if not self._is_typed:
            return args, kwargs
        self._bind(args, kwargs)
        return self._convert(args, kwargs, _dump) if self._checks else (args, kwargs)

    def check_types(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check the types of arguments of which `check_number` is true, as `dump` will; not of those that are `UNKNOWN`.

        Raises:
            InvalidArguments, EncodeError: as `dump`.
        """
        if self._is_typed and self._checks:
            self._convert(args, kwargs, _check)

    def check_number(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Check number and names of arguments, not their types.

        Raises:
            InvalidArguments: they do not fit the signature.
        """
        if self._is_typed:
            self._bind(args, kwargs)

    def load(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Sequence[Any], Mapping[str, Any]]:
        """What the function gets of a received message.

        Raises:
            InvalidArguments: they do not fit the signature or an annotation; names the parameter.
        """
        if not self._is_typed:
            return args, kwargs
        self._bind(args, kwargs)
        return self._convert(args, kwargs, _load) if self._checks else (args, kwargs)

    def dump_return(self, value: Any) -> Any:
        """A return value as it is stored: models as plain data.

        Raises:
            EncodeError: it cannot be written as plain data.
        """
        if self._returns is not None:
            return self._returns.dump_return(value)
        if value is None or type(value) in _PLAIN:
            return value
        if "pydantic" in sys.modules and self._is_typed:
            from amqp_tasks.app._adapter import dump_model

            return dump_model(value, self._dump_kwargs)
        return value

    def load_return(self, value: Any) -> Any:
        """A stored value as the caller gets it: as the function's return annotation says, where that fits."""
        return self._returns.validate_or_keep(value) if self._returns is not None else value

    def labels(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], sensitive: Sequence[str]
    ) -> tuple[str, str]:
        """What logs show of the arguments, with those of `sensitive` parameters as `***`."""
        names = [parameter.name for parameter in self._positional]
        names += [self._var_positional_name] * (len(args) - len(names))
        shown = [
            HIDDEN if name in sensitive else bounded_repr(value)
            for name, value in zip(names, args, strict=False)
        ]
        pairs = [
            f"{name!r}: {HIDDEN if name in sensitive else bounded_repr(value)}"
            for name, value in kwargs.items()
        ]
        return f"({', '.join(shown)}{',' if len(shown) == 1 else ''})", f"{{{', '.join(pairs)}}}"

    def _bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        # The common call needs no inspect machinery: positional arguments only, of a number that fits.
        count = len(args)
        fits = self._required <= count and (count <= len(self._positional) or self._has_var_positional)
        if fits and not kwargs and not self._needs_keywords:
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise InvalidArguments(
                f"task {self._task_name!r}: {exc} (signature: {self._signature})"
            ) from None

    def _convert(
        self, args: Sequence[Any], kwargs: Mapping[str, Any], convert: Callable[[_Check, Any], Any]
    ) -> tuple[Sequence[Any], Mapping[str, Any]]:
        checks = self._by_position
        if len(args) > len(checks):
            checks = checks + [self._var_positional] * (len(args) - len(checks))
        out = [
            value
            if check is None or ((plain := check.plain) is not None and type(value) in plain)
            else self._one(check, value, convert)
            for check, value in zip(checks, args, strict=False)
        ]
        if not kwargs:
            return out, kwargs
        named, rest = self._named, self._var_keyword
        return out, {
            name: value
            if (check := named.get(name, rest)) is None
            else self._one(check, value, convert, name)
            for name, value in kwargs.items()
        }

    def _one(self, check: _Check, value: Any, convert: Callable[[_Check, Any], Any], name: str = "") -> Any:
        plain = check.plain
        if plain is not None and type(value) in plain:
            return value
        try:
            return convert(check, value)
        except EncodeError:
            raise
        except ValueError as exc:
            where = f"task {self._task_name!r}: argument {(name or check.name)!r}"
            raise InvalidArguments(f"{where}: {_explain(exc)}") from None


def check_sensitive(task: Task[..., Any], function: Callable[..., Any], *, skip_first: bool) -> None:
    """Refuse a task whose `sensitive` names no parameter: misspelt, it would leave in the logs what it is to hide.

    Raises:
        ConfigurationError: it does, and the function does not take any keyword.
    """
    signature = inspect.signature(function)
    parameters = list(signature.parameters.values())[1 if skip_first else 0 :]
    _check_sensitive(task, signature.replace(parameters=parameters))


def _check_sensitive(task: Task[..., Any], signature: inspect.Signature) -> None:
    parameters = signature.parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    for name in task.sensitive:
        if name not in parameters:
            raise ConfigurationError(
                f"task {task.name!r}: sensitive names {name!r}, which is no parameter of {signature}"
            )


def _conversion(task: Task[..., Any]) -> Conversion:
    if task.pydantic_dump_kwargs:
        from amqp_tasks.app._adapter import check_dump_kwargs

        check_dump_kwargs(task.pydantic_dump_kwargs, task.name)
    # Under Celery's names: a model's validator then finds them there and here.
    own = {"celery_app": task.app, "celery_task_name": task.name}
    return Conversion(
        strict=task.pydantic_strict,
        context={**(task.pydantic_context or {}), **own},
        dump_kwargs=task.pydantic_dump_kwargs or {},
    )


_NOT_NAMED = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.VAR_POSITIONAL,
    inspect.Parameter.VAR_KEYWORD,
)


def _dump(check: _Check, value: Any) -> Any:
    return check.dump(value)


def _check(check: _Check, value: Any) -> None:
    check.check(value)


def _load(check: _Check, value: Any) -> Any:
    return check.load(value)


def _explain(exc: ValueError) -> str:
    errors: Any = getattr(exc, "errors", None)
    if errors is None:
        return str(exc)
    # pydantic's own: the path inside the argument and the rule, never the value, which may be a secret.
    faults = [
        (".".join(map(str, e["loc"])), e["msg"]) for e in errors(include_url=False, include_input=False)
    ]
    return "; ".join(f"{path}: {message}" if path else str(message) for path, message in faults)


class _Builder:
    """Decides how annotations are checked."""

    def __init__(self, task_name: str, conversion: Conversion | None) -> None:
        self._task_name, self._conversion = task_name, conversion

    def check(self, parameter: inspect.Parameter, annotation: Any) -> _Check | None:
        """The check of one parameter; None when anything goes."""
        plain = _plain_types(annotation)
        adapter = None if plain is not None else self.adapter(annotation)
        if plain is None and adapter is None:
            return None
        return _Check(parameter.name, plain, adapter, parameter.default)

    def adapter(self, annotation: Any) -> Adapter | None:
        """pydantic's part for an annotation; None when it needs none."""
        if self._conversion is None or _is_unchecked(annotation) or _plain_types(annotation) is not None:
            return None
        from amqp_tasks.app._adapter import Adapter

        return Adapter(annotation, self._conversion, task_name=self._task_name)


def _is_unchecked(annotation: Any) -> bool:
    if isinstance(annotation, typing.TypeVar | typing.ParamSpecArgs | typing.ParamSpecKwargs):
        return True
    try:
        return annotation in _UNCHECKED
    except TypeError:
        return False


def _plain_types(annotation: Any) -> tuple[type, ...] | None:
    """The types that pass for an annotation of plain builtins; None when it is none."""
    origin = get_origin(annotation)
    if origin is typing.Union or origin is types.UnionType:
        found: list[type] = []
        for part in get_args(annotation):
            accepted = _plain_types(part)
            if accepted is None:
                return None
            found += accepted
        return tuple(dict.fromkeys(found))
    if origin in _PLAIN_CONTAINERS:
        return _PLAIN[origin] if get_args(annotation) == _PLAIN_CONTAINERS[origin] else None
    try:
        return _PLAIN.get(annotation)
    except TypeError:
        return None


def _hints(function: Callable[..., Any], task_name: str) -> dict[str, Any]:
    """Annotations of a function; one that cannot be resolved at run time leaves its parameter unchecked."""
    raw: dict[str, Any] = dict(getattr(function, "__annotations__", {}))
    if not raw:
        return {}
    try:
        return typing.get_type_hints(function, include_extras=True)
    except Exception:  # noqa: BLE001 - annotations are any expression; the names below say which one failed
        return {
            name: hint for name, value in raw.items() if (hint := _resolve(function, name, value, task_name))
        }


def _resolve(function: Callable[..., Any], name: str, value: Any, task_name: str) -> Any:
    holder = types.SimpleNamespace(__annotations__={name: value})
    try:
        found = typing.get_type_hints(holder, vars(sys.modules[function.__module__]), include_extras=True)
    except Exception as exc:  # noqa: BLE001 - see _hints
        _log.warning(
            "task %s: annotation of %r cannot be resolved (%s), so it is not checked",
            task_name,
            name,
            exc,
            extra={"action": "annotation_unresolved", "task_name": task_name},
        )
        return None
    return found.get(name)
