"""Models whose fields have aliases, as arguments and as return values."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from pydantic import AliasChoices, AliasPath, BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel
from pydantic.dataclasses import dataclass

from amqp_tasks.app._arguments import Parameters
from amqp_tasks.app._conversion import Conversion
from amqp_tasks.errors import EncodeError


class Alias(BaseModel):
    user_id: int = Field(alias="userId")


class WithDefault(BaseModel):
    user_id: int = Field(default=1, alias="userId")


class Validation(BaseModel):
    user_id: int = Field(validation_alias="userId")


class Serialization(BaseModel):
    user_id: int = Field(serialization_alias="userId")


class Both(BaseModel):
    user_id: int = Field(validation_alias="userId", serialization_alias="uid")


class Choices(BaseModel):
    user_id: int = Field(validation_alias=AliasChoices("userId", "uid"), serialization_alias="uid")


class Path(BaseModel):
    user_id: int = Field(validation_alias=AliasPath("user", "id"))


class ByName(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    user_id: int = Field(alias="userId")


class ByNameOnly(BaseModel):
    model_config = ConfigDict(validate_by_name=True, validate_by_alias=False)
    user_id: int = Field(alias="userId")


class Generated(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, extra="forbid")
    user_id: int


class Configured(BaseModel):
    model_config = ConfigDict(serialize_by_alias=True)
    user_id: int = Field(validation_alias="userId", serialization_alias="uid")


class Deferred(BaseModel):
    model_config = ConfigDict(defer_build=True)
    user_id: int = Field(alias="userId")


class OwnInit(BaseModel):
    user_id: int = Field(alias="userId")

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)


class OwnInitBoth(OwnInit):
    user_id: int = Field(validation_alias="userId", serialization_alias="uid")


class Swapped(BaseModel):
    """Read by its names, each field would be the other one."""

    user_id: int = Field(alias="shop_id")
    shop_id: int = Field(alias="user_id")


class Outer(BaseModel):
    inner: Alias
    many: dict[str, list[Generated]] = {}


@dataclass
class Data:
    user_id: int = Field(alias="userId")


ID = Alias(userId=3)
MODELS = [
    (ID, {"userId": 3}, {"user_id": 3}),
    (WithDefault(userId=3), {"userId": 3}, {"user_id": 3}),
    (Validation(userId=3), {"user_id": 3}, {"user_id": 3}),
    (Serialization(user_id=3), {"user_id": 3}, {"user_id": 3}),
    (Both(userId=3), {"user_id": 3}, {"user_id": 3}),
    (Choices(userId=3), {"uid": 3}, {"user_id": 3}),
    (Path.model_validate({"user": {"id": 3}}), {"user_id": 3}, {"user_id": 3}),
    (ByName(user_id=3), {"userId": 3}, {"user_id": 3}),
    (ByNameOnly.model_validate({"user_id": 3}), {"userId": 3}, {"user_id": 3}),
    (Generated(userId=3), {"userId": 3}, {"user_id": 3}),
    (Configured(userId=3), {"user_id": 3}, {"user_id": 3}),
    (Deferred(userId=3), {"userId": 3}, {"user_id": 3}),
    (OwnInit(userId=3), {"userId": 3}, {"userId": 3}),
    (Swapped(shop_id=1, user_id=2), {"shop_id": 1, "user_id": 2}, {"shop_id": 1, "user_id": 2}),
    (
        Outer(inner=ID, many={"a": [Generated(userId=4)]}),
        {"inner": {"userId": 3}, "many": {"a": [{"userId": 4}]}},
        {"inner": {"user_id": 3}, "many": {"a": [{"user_id": 4}]}},
    ),
    (Data(userId=3), {"userId": 3}, {"user_id": 3}),
]


def _parameters(kind: Any, dump_kwargs: Mapping[str, Any] | None = None) -> Parameters:
    def task(given: Any) -> Any:
        return given

    task.__annotations__ = {"given": kind, "return": kind}
    conversion = Conversion(dump_kwargs=dump_kwargs or {})
    return Parameters("t", task, skip_first=False, typing=True, conversion=conversion)


def _received(sent: Any) -> Any:
    return json.loads(json.dumps(sent))


@pytest.mark.parametrize("wrap", [lambda kind: kind, lambda kind: kind | None])
@pytest.mark.parametrize(("model", "sent", "returned"), MODELS, ids=lambda value: type(value).__name__)
def test_model_with_aliases_arrives_and_comes_back_as_it_was(
    model: Any, sent: object, returned: object, wrap: Callable[[Any], Any]
) -> None:
    found = _parameters(wrap(type(model)))

    args, _ = found.dump((model,), {})
    result = found.dump_return(model)

    assert (list(args), result) == ([sent], returned)
    assert list(found.load(_received(args), {})[0]) == [model]
    assert found.load_return(_received(result)) == model


@pytest.mark.parametrize("given", [{"userId": 3}, {"user_id": 3}])
def test_plain_data_fits_by_the_aliases_and_by_the_names(given: dict[str, int]) -> None:
    found = _parameters(WithDefault)

    args, _ = found.dump((given,), {})

    assert (list(args), list(found.load([given], {})[0])) == ([{"userId": 3}], [WithDefault(userId=3)])


@pytest.mark.parametrize("by_alias", [True, False])
def test_result_goes_by_what_the_task_says(by_alias: bool) -> None:
    found = _parameters(Alias, {"by_alias": by_alias})

    result = found.dump_return(ID)

    assert result == ({"userId": 3} if by_alias else {"user_id": 3})
    assert found.load_return(result) == ID


def test_model_that_no_worker_could_read_is_refused_at_the_caller() -> None:
    with pytest.raises(
        EncodeError, match=r"OwnInitBoth cannot be read back.*userId: Field required.*one alias"
    ):
        _parameters(OwnInitBoth).dump((OwnInitBoth(userId=3),), {})


def test_default_with_aliases_goes_by_them_too() -> None:
    def task(given: Alias = ID) -> None: ...

    found = Parameters("t", task, skip_first=False, typing=True, conversion=Conversion())

    args, _ = found.dump((ID,), {})

    assert list(args) == [{"userId": 3}]
    assert list(found.load(args, {})[0]) == [ID]
