"""User code that type checkers must accept, and, where an ignore stands, must refuse (an unused ignore is an error)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, assert_type

from amqp_tasks import App, AsyncResult, ResultSet, Task, shared_task

app = App("typed")


@app.task
def add(x: int, y: int = 0) -> int:
    return x + y


@app.task()
def shout(text: str) -> str:
    return text.upper()


@app.task(name="mail.send", queue="mails", ignore_result=True)
def send(to: str, *, urgent: bool = False) -> None:
    return None


@app.task(bind=True)
def bound(self: Task[..., Any], count: int) -> str:
    return f"{self.name} {self.request.id} {count}"


class Base(Task[..., Any]):
    tenant = "none"


@app.task(base=Base, tenant="acme")
def based(x: float) -> float:
    return x


@app.task(base=Base, bind=True)
def based_and_bound(self: Base, x: float) -> str:
    return self.tenant


@shared_task
def shared(x: int) -> bytes:
    return bytes(x)


async def awaited(results: ResultSet[int]) -> None:
    assert_type(await shout.delay("a"), str)
    assert_type(await results, list[int])
    async for result in results:
        assert_type(result, AsyncResult[int])


def accepted() -> None:
    assert_type(add(1, 2), int)
    assert_type(add.delay(1), AsyncResult[int])
    assert_type(add.delay(1, y=2).get(timeout=1), int)
    assert_type(shout.delay("a").get(), str)
    assert_type(send.delay("a", urgent=True), AsyncResult[None])
    assert_type(bound.delay(1).get(), str)
    assert_type(bound.delay(count=1), AsyncResult[str])
    assert_type(based.delay(1.0), AsyncResult[float])
    assert_type(based_and_bound.delay(1.0), AsyncResult[str])
    assert_type(shared.delay(1), AsyncResult[bytes])
    assert_type(add.apply_async((1, 2), queue="hipri", priority=3), AsyncResult[int])
    assert_type(add.options(queue="hipri").delay(1, 2), AsyncResult[int])
    assert_type(add.map_async([(1, 2), (3, 4)]), ResultSet[int])
    assert_type(add.map_async([(1, 2)]).get(), list[int])
    with app.pipeline() as pipeline:
        assert_type(pipeline.delay(add, 1, y=2), AsyncResult[int])
    takes_any_task: Callable[[Task[..., Any]], None] = lambda task: None  # noqa: E731
    takes_any_task(add)


def refused() -> None:
    add.delay("1")  # type: ignore[arg-type]
    add.delay()  # type: ignore[call-arg]
    add.delay(1, z=2)  # type: ignore[call-arg]
    send.delay("a", True)  # type: ignore[call-arg]
    bound.delay("many")  # type: ignore[arg-type]
    shared.delay("1")  # type: ignore[arg-type]
    add.options(queue="hipri").delay("1")  # type: ignore[arg-type]
    add.apply_async((1, 2), quue="hipri")  # type: ignore[call-arg]
    add.apply_async((1, 2), priority="high")  # type: ignore[arg-type]
    with app.pipeline() as pipeline:
        pipeline.delay(add, "1")  # type: ignore[arg-type]
    app.task(nmae="x")  # type: ignore[call-overload]
