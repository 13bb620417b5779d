"""Arguments checked at the caller and coerced at the worker."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator

from amqp_tasks import App
from amqp_tasks.app._arguments import Parameters
from amqp_tasks.app._conversion import Conversion
from amqp_tasks.errors import ConfigurationError, InvalidArguments


def parameters(function: Callable[..., Any], *, pydantic: bool = True, strict: bool = False) -> Parameters:
    conversion = Conversion(strict=strict) if pydantic else None
    return Parameters("t", function, skip_first=False, typing=True, conversion=conversion)


class Order(BaseModel):
    number: int
    at: datetime


@dataclass
class Point:
    x: int
    y: int


def plain(a: int, b: str = "b", *rest: float, flag: bool = False, **more: list[str]) -> dict[str, Any]:
    return {}


def rich(order: Order, point: Point, key: UUID, at: datetime, kind: Literal["a", "b"]) -> Order:
    return order


ID = UUID("12345678123456781234567812345678")
AT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((1,), {}), ((1, "x"), {}), ((1, "x", 1.5, 2), {}), ((), {"a": 1}), ((1,), {"flag": True, "z": ["s"]})],
)
def test_fitting_arguments_pass_unchanged(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    sent_args, sent_kwargs = parameters(plain).dump(args, kwargs)

    assert (tuple(sent_args), dict(sent_kwargs)) == (args, kwargs)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "missing a required argument: 'a'"),
        (("1",), {}, "argument 'a': expected int, got str"),
        ((1, 2), {}, "argument 'b': expected str, got int"),
        ((1, "x", "y"), {}, "argument 'rest': expected float or int, got str"),
        ((1,), {"flag": 1}, "argument 'flag': expected bool, got int"),
        ((1,), {"a": 1}, "multiple values for argument 'a'"),
        ((1,), {"z": "s"}, "argument 'z'"),
    ],
)
def test_arguments_that_do_not_fit_are_named(
    args: tuple[Any, ...], kwargs: dict[str, Any], said: str
) -> None:
    with pytest.raises(InvalidArguments, match=f"task 't'.*{said}"):
        parameters(plain).dump(args, kwargs)


def test_rich_types_travel_as_plain_data_and_arrive_as_themselves() -> None:
    found = parameters(rich)
    given = (Order(number=1, at=AT), Point(1, 2), ID, AT, "a")

    sent, _ = found.dump(given, {})
    loaded, _ = found.load(sent, {})

    at = "2026-01-02T03:04:05Z"
    assert list(sent) == [{"number": 1, "at": at}, {"x": 1, "y": 2}, str(ID), at, "a"]
    assert tuple(loaded) == given


def test_a_fault_inside_a_model_is_told_with_its_path_and_without_the_value() -> None:
    with pytest.raises(
        InvalidArguments, match=r"argument 'order': number: Input should be a valid integer"
    ) as caught:
        parameters(rich).dump(({"number": "s3cr3t", "at": AT}, Point(1, 2), ID, AT, "a"), {})

    assert "s3cr3t" not in str(caught.value)


def test_a_constraint_holds_on_both_sides() -> None:
    def count(n: Annotated[int, Field(ge=1)]) -> None: ...

    for side in (parameters(count).dump, parameters(count).load):
        with pytest.raises(InvalidArguments, match="argument 'n'"):
            side((0,), {})


def test_strict_mode_does_not_convert() -> None:
    def numbers(values: list[int]) -> None: ...

    assert parameters(numbers).load((["1"],), {})[0] == [[1]]
    with pytest.raises(InvalidArguments):
        parameters(numbers, strict=True).load((["1"],), {})


def test_a_default_of_another_type_is_accepted() -> None:
    def sloppy(n: int = None, at: datetime = None) -> None: ...  # type: ignore[assignment]  # noqa: RUF013

    assert list(parameters(sloppy).dump((None, None), {})[0]) == [None, None]
    assert list(parameters(sloppy).load((None, None), {})[0]) == [None, None]


def test_without_pydantic_rich_types_are_not_checked() -> None:
    args = ("anything", None, 1, 2, "z")

    assert tuple(parameters(rich, pydantic=False).dump(args, {})[0]) == args


def test_an_annotation_that_cannot_be_resolved_leaves_its_parameter_unchecked() -> None:
    def partly(a: Nowhere, b: int) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    assert list(parameters(partly).dump((object, 1), {})[0]) == [object, 1]
    with pytest.raises(InvalidArguments, match="argument 'b'"):
        parameters(partly).dump((1, "x"), {})


def test_results_are_dumped_and_loaded_by_the_return_annotation() -> None:
    found = parameters(rich)
    order = Order(number=1, at=AT)

    dumped = found.dump_return(order)

    assert dumped == {"number": 1, "at": "2026-01-02T03:04:05Z"}
    assert found.load_return(dumped) == order
    assert found.load_return("no order") == "no order"


def test_a_model_returned_without_annotation_is_dumped() -> None:
    assert parameters(lambda: None).dump_return(Point) is Point
    assert parameters(lambda: None).dump_return(Order(number=2, at=AT))["number"] == 2


def test_sensitive_parameters_are_hidden_in_labels() -> None:
    def login(user: str, password: str, *more: str) -> None: ...

    args, kwargs = parameters(login).labels(("u", "s3cr3t"), {"password": "s3cr3t", "n": 1}, ("password",))

    assert args == "('u', ***)"
    assert kwargs == "{'password': ***, 'n': 1}"


class Price(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    amount: int = Field(alias="a")
    note: str | None = None

    @field_validator("amount")
    @classmethod
    def _within(cls, value: int, info: ValidationInfo) -> int:
        context = info.context or {}
        if value > context["most"]:
            raise ValueError(f"too much for {context['celery_task_name']}")
        return value


def test_validators_get_the_tasks_context_at_the_caller_and_in_the_task() -> None:
    app = App("proj", task_always_eager=True)

    @app.task(name="pay", pydantic_context={"most": 10})
    def pay(price: Price) -> Price:
        return price.model_copy(update={"note": "paid"})

    assert pay.delay(Price.model_construct(amount=3)).get().note == "paid"
    with pytest.raises(InvalidArguments, match="too much for pay"):
        pay.apply_async(({"a": 11},))


@pytest.mark.parametrize("is_annotated", [True, False])
def test_a_returned_model_is_dumped_as_the_task_says(is_annotated: bool) -> None:
    app = App("proj", task_always_eager=True)

    def price() -> Any:
        return Price.model_construct(amount=3)

    if is_annotated:
        price.__annotations__["return"] = Price
    task = app.task(pydantic_dump_kwargs={"by_alias": True, "exclude_none": True})(price)

    # The raw value, without the conversion by the return annotation.
    assert task.parameters.dump_return(price()) == {"a": 3}


@pytest.mark.parametrize("given", [{"exclude_nothing": True}, {"exclude_none": 3}, {"include": 5}])
def test_what_model_dump_does_not_take_is_refused_before_the_task_runs(given: dict[str, Any]) -> None:
    task = App("proj").task(name="odd", pydantic_dump_kwargs=given)(plain)

    with pytest.raises(ConfigurationError, match=r"'odd': pydantic_dump_kwargs=.*model_dump\(\)"):
        task.parameters  # noqa: B018 - built at first use
