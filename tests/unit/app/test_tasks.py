"""Declaring, naming, registering and running tasks without a broker."""

from __future__ import annotations

import asyncio
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Annotated, Any

import pytest
from pydantic import BeforeValidator

from amqp_tasks import (
    App,
    AsyncResult,
    Task,
    current_app,
    current_task,
    result_from_tuple,
    shared_task,
)
from amqp_tasks.app import _celerys, _control, _shared
from amqp_tasks.app._current import set_current
from amqp_tasks.app._execution import execute
from amqp_tasks.app._request import Request
from amqp_tasks.errors import ConfigurationError, EncodeError, InvalidArguments, NotRegistered
from amqp_tasks.message import Payload, State

ROOT = __name__


def add(x: int, y: int) -> int:
    return x + y


def run(task: Task[..., Any], *args: Any, **request: Any) -> Any:
    return execute(task, Request(**{"id": "1", **request}), Payload(list(args), {}, {}))


def test_every_form_of_the_decorator_makes_a_task() -> None:
    app = App("proj")

    tasks = [
        app.task(add),
        app.task()(lambda: 1),
        app.task(name="给")(add),
        app.task(name="b", bind=True)(repr),
    ]

    assert all(isinstance(task, Task) for task in tasks)
    assert list(app.tasks) == [f"{ROOT}.add", f"{ROOT}.<lambda>", "给", "b"]
    assert app.tasks[f"{ROOT}.add"](2, 2) == 4
    assert not hasattr(add, "delay")


def test_main_stands_in_for_the_module_of_a_script() -> None:
    assert App("send_email").gen_task_name("process", "__main__") == "send_email.process"
    assert App().gen_task_name("process", "a.b") == "a.b.process"


def test_an_empty_name_is_refused_and_not_replaced() -> None:
    app = App("proj")

    with pytest.raises(ConfigurationError, match="task name"):
        app.task(name="")(add)

    assert list(app.tasks) == []


def test_two_tasks_of_one_name_are_an_error_that_shows_both() -> None:
    app = App("proj")
    app.task(name="same")(add)

    with pytest.raises(ConfigurationError, match=r"two tasks are named 'same'.*test_tasks\.py"):
        app.task(name="same")(lambda: None)


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ("quue", "did you mean 'queue'"),
        ("ratelimit", "did you mean .rate_limit"),
        ("delay", "unknown option"),
        ("correlation_id", "set `task_id`"),
        ("content_type", "set `serializer`"),
        ("content_encoding", "set `serializer`"),
        ("expiration", "set `expires`"),
        ("user_id", "unknown option"),
    ],
)
def test_an_option_no_task_has_is_refused(option: str, said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        App("proj").task(**{option: 1})(add)  # type: ignore[call-overload]


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("priority", "high", "whole number from 0 to 255, got 'high'"),
        ("priority", True, "whole number"),
        ("queue", 5, "name of a queue"),
        ("exchange", object(), "name of an exchange"),
        ("task_id", 5, "text"),
        ("headers", "tenant", "a mapping"),
        ("countdown", "soon", "number of seconds"),
        ("countdown", float("nan"), "number of seconds"),
        ("countdown", 1e10, "at most a century"),
        ("eta", 5, "a datetime"),
        ("expires", "tomorrow", "seconds from now or a timedelta, not negative, or a datetime"),
        ("time_limit", "10", "number of seconds"),
        ("timeout", "soon", "number of seconds"),
        ("retry_policy", 3, "task_publish_retry_policy"),
        ("reply_to", 5, "name of a queue"),
    ],
)
def test_a_value_of_a_wrong_type_is_refused(option: str, value: Any, said: str) -> None:
    task: Any = App("proj").task(add)

    with pytest.raises(ConfigurationError, match=f"'{option}' must be .*{said}"):
        task.apply_async((1, 2), **{option: value})


@pytest.mark.parametrize("rate", ["1001/s", "1/d", 1e-7, -1, True, "often"])
def test_a_limit_for_all_nodes_that_tokens_cannot_keep_is_refused(rate: Any) -> None:
    task: Any = App("proj").task

    with pytest.raises(ConfigurationError, match=r"'cluster_rate_limit' must be .*at most 1000 in a second"):
        task(cluster_rate_limit=rate)(add)


def test_a_limit_for_all_nodes_belongs_to_a_task() -> None:
    task: Any = App("proj").task(add)

    with pytest.raises(ConfigurationError, match=r"@app.task\(cluster_rate_limit"):
        task.apply_async((1, 2), cluster_rate_limit="1/s")


def test_a_task_option_of_a_wrong_type_is_refused() -> None:
    task: Any = App("proj").task

    with pytest.raises(ConfigurationError, match="'priority' must be a whole number"):
        task(priority="high")(add)


@pytest.mark.parametrize(
    ("limits", "said"),
    [
        ({"time_limit": -1}, "'time_limit' must be a finite number of seconds, 0 for none, got -1"),
        ({"soft_time_limit": float("nan")}, "'soft_time_limit' must be a finite number"),
        (
            {"time_limit": 5, "soft_time_limit": 5.0},
            r"'soft_time_limit' \(5 s\) must be below time_limit \(5 s\)",
        ),
    ],
)
def test_time_limits_that_make_no_sense_are_refused(limits: dict[str, float], said: str) -> None:
    task: Any = App("proj").task

    with pytest.raises(ConfigurationError, match=said):
        task(**limits)(add)
    with pytest.raises(ConfigurationError, match=said):
        task(add).apply_async((1, 2), **limits)


@pytest.mark.parametrize(("args", "said"), [("ab", "list or tuple"), (5, "list or tuple")])
def test_args_that_are_no_sequence_are_refused(args: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        App("proj").task(add).apply_async(args)


def test_a_base_class_brings_options_and_wraps_runs() -> None:
    class Base(Task[..., Any]):
        queue = "special"
        tenant = "none"

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            return ["wrapped", self.request.id, super().__call__(*args, **kwargs)]

    task = App("proj").task(base=Base, tenant="acme")(add)

    assert (task.queue, getattr(task, "tenant")) == ("special", "acme")  # noqa: B009
    assert run(task, 1, 2).value == ["wrapped", "1", 3]


def test_a_class_based_task_is_registered_by_its_class_name() -> None:
    class Mail(Task[..., Any]):
        def run(self, *args: Any, **kwargs: Any) -> Any:
            return (self.name, args)

    app = App("proj")
    task = app.register_task(Mail)

    assert app.tasks[f"{ROOT}.Mail"] is task
    assert task(1) == (f"{ROOT}.Mail", (1,))


def test_an_unknown_name_is_told_with_the_nearest() -> None:
    app = App("proj")
    app.task(name="mail.send")(add)

    with pytest.raises(NotRegistered, match=r"did you mean 'mail\.send'"):
        app.tasks["mail.sent"]


@pytest.mark.parametrize("propagates", [False, True])
def test_an_eager_call_of_a_name_that_nobody_has_fails_as_it_would_in_a_worker(propagates: bool) -> None:
    app = App("proj", task_always_eager=True, task_eager_propagates=propagates)

    for call in (lambda: app.send_task("nobodys", (1,)), lambda: app.signature("nobodys", (1,)).delay()):
        with pytest.raises(
            NotRegistered, match=r"no task 'nobodys' is registered here .*: import the module"
        ):
            call().get()


def test_success_failure_and_invalid_arguments_are_outcomes() -> None:
    app = App("proj")

    @app.task(throws=(LookupError,))
    def fail() -> None:
        raise LookupError("x")

    good, bad, wrong = run(app.task(add), 1, 2), run(fail), run(app.tasks[f"{ROOT}.add"], "1")

    assert (good.state, good.value, good.traceback_text) == (State.SUCCESS, 3, None)
    assert (bad.state, bad.is_expected, bad.is_invalid) == (State.FAILURE, True, False)
    assert "_execution.py" not in bad.traceback_text
    assert isinstance(wrong.exception, InvalidArguments)
    assert wrong.is_invalid


def test_without_typing_arguments_are_the_functions_own_matter() -> None:
    app = App("proj", broker="memory://unchecked/")
    task = app.adopt(add, {"name": "unchecked", "typing": False})
    checked = app.adopt(add, {"name": "checked"})

    with pytest.raises(InvalidArguments):
        checked.apply_async(("1",))
    sent = task.apply_async(("1",))

    assert sent.id
    assert run(task, "a", "b").value == "ab"
    assert isinstance(run(task, "1").exception, TypeError)
    app.close()


def test_what_ends_the_process_passes_through() -> None:
    def leave() -> None:
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        run(App("proj").task(leave))


def test_an_async_task_gives_its_value_and_not_a_coroutine() -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x

    task = App("proj").task(later)

    assert run(task, 5).value == 5

    async def inside_a_loop() -> Any:
        return run(task, 6).value

    assert asyncio.run(inside_a_loop()) == 6


def test_a_request_is_isolated_per_execution_in_threads() -> None:
    barrier = threading.Barrier(100)

    @App("proj").task(bind=True)
    def who(self: Task[..., Any]) -> tuple[str | None, Any]:
        barrier.wait(20)
        return self.request.id, current_task() is self and vars(self.request)["origin"]

    with ThreadPoolExecutor(100) as pool:
        found = list(pool.map(lambda i: run(who, id=str(i), origin="me").retval, range(100)))

    assert found == [(str(i), "me") for i in range(100)]


def test_a_request_is_isolated_per_execution_in_coroutines() -> None:
    @App("proj").task(bind=True)
    async def who(self: Task[..., Any]) -> str | None:
        await asyncio.sleep(0)
        return self.request.id

    async def main() -> list[Any]:
        def one(i: int) -> Any:
            return copy_context().run(lambda: run(who, id=str(i)).value)

        return await asyncio.gather(*(asyncio.to_thread(one, i) for i in range(100)))

    assert asyncio.run(main()) == [str(i) for i in range(100)]


def test_a_direct_call_knows_that_it_is_one() -> None:
    @App("proj").task(bind=True)
    def who(self: Task[..., Any]) -> tuple[bool, str | None]:
        return self.request.called_directly, self.request.id

    assert who() == (True, None)
    assert who.request.called_directly


def test_apply_runs_here_and_gives_a_finished_result() -> None:
    app = App("proj")
    task = app.task(add)

    result = task.apply((1, 2))

    assert (result.get(), result.state, result.ready(), result.successful()) == (3, "SUCCESS", True, True)
    assert result.date_done is not None
    assert result.date_done.tzinfo is not None
    with pytest.raises(InvalidArguments):
        task.apply((1,))


def test_eager_calls_go_through_the_serializer() -> None:
    app = App("proj", task_always_eager=True)
    same = app.task(lambda value: value)

    assert same.delay((1, 2)).get() == [1, 2]
    with pytest.raises(EncodeError):
        same.delay(object())
    odd = app.task(name="odd")(object)
    assert odd.delay().state == "FAILURE"


def test_eager_propagates_raises_at_the_call() -> None:
    app = App("proj", task_always_eager=True, task_eager_propagates=True)

    with pytest.raises(ZeroDivisionError):
        app.task(lambda: 1 / 0).delay()


def test_eager_children_and_parents_are_linked() -> None:
    app = App("proj", task_always_eager=True)
    leaf = app.task(name="leaf", bind=True)(lambda self: (self.request.parent_id, self.request.depth))
    top = app.task(name="top", bind=True)(lambda self: [self.request.id, *leaf.delay().get()])

    result = top.delay()

    assert result.get() == [result.id, result.id, 1]
    assert len(result.children) == 1


def test_a_result_is_its_id() -> None:
    app = App("proj", task_always_eager=True)
    result: AsyncResult[Any] = AsyncResult("a", app=app, parent=AsyncResult("b", app=app))

    assert (str(result), repr(result), result.task_id) == ("a", "<AsyncResult: a>", "a")
    assert result == AsyncResult("a")
    assert result == "a"
    assert len({result, AsyncResult("a")}) == 1
    assert pickle.loads(pickle.dumps(result)) == result
    assert result.as_tuple() == (("a", (("b", None), None)), None)
    assert result_from_tuple([["a", [["b", None], None]], None]).as_list() == ["a", "b"]


def test_shared_tasks_belong_to_every_app_and_call_through_the_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_shared, "_declared", [])
    before = App("before", task_always_eager=True)

    @shared_task(name="shared.who", bind=True)
    def who(self: Task[..., Any]) -> str | None:
        return self.app.main

    after = App("after", task_always_eager=True)
    try:
        before.set_current()
        assert who.delay().get() == "before"
        after.set_current()
        assert who.delay().get() == "after"
        assert current_app() is after
        assert "shared.who" in before.tasks
        assert who() == "after"
        assert isinstance(who, Task)
    finally:
        set_current(None)


def test_annotations_in_the_settings_change_tasks() -> None:
    app = App("proj", task_annotations={"*": {"priority": 1}, "a": {"queue": "q"}}, task_always_eager=True)
    task = app.task(name="a")(add)

    task.delay(1, 2)

    assert (task.priority, task.queue) == (1, "q")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sensitive": "password"}, "sensitive takes several, got 'password'"),
        ({"throws": KeyError}, "throws takes several"),
        ({"throws": 5}, "throws takes several, got 5"),
    ],
)
def test_one_where_several_are_meant_is_refused(options: dict[str, Any], said: str) -> None:
    task: Any = App("proj").task
    with pytest.raises(ConfigurationError, match=said):
        task(**options)(add)

    kind: type[Task[..., Any]] = type("Kind", (Task,), {**options, "run": lambda self: None})
    with pytest.raises(ConfigurationError, match=said):
        App("proj").register_task(kind)


def test_a_generator_function_is_no_task() -> None:
    def numbers() -> Iterator[int]:
        yield 1

    async def later() -> AsyncIterator[int]:
        yield 1

    class Numbers(Task[..., Any]):
        def run(self) -> Iterator[int]:
            yield 1

    app = App("proj")

    for function in (numbers, later):
        with pytest.raises(
            ConfigurationError, match=r"task 'numbers' is a generator function.*return a list"
        ):
            app.task(name="numbers")(function)
    with pytest.raises(ConfigurationError, match="is a generator function"):
        app.register_task(Numbers)


def test_a_validator_that_fails_in_its_own_way_is_an_outcome() -> None:
    def look_up(value: str) -> str:
        raise KeyError(value)

    def takes(name: str) -> None: ...

    takes.__annotations__ = {"name": Annotated[str, BeforeValidator(look_up)]}

    outcome = run(App("proj").task(takes), "x")

    assert (outcome.state, type(outcome.exception)) == (State.FAILURE, KeyError)


def test_a_failure_that_is_not_raised_is_told_to_the_callback() -> None:
    app = App("proj", task_always_eager=True)
    heard: list[Any] = []

    app.task(lambda: 1 / 0).delay().get(propagate=False, callback=lambda task_id, value: heard.append(value))

    assert [type(value) for value in heard] == [ZeroDivisionError]


def test_building_an_app_imports_nothing_heavy() -> None:
    code = (
        "import sys, amqp_tasks\n"
        "app = amqp_tasks.App('x', broker='amqp://me:pw@host/v', backend='rpc://', include=['proj.tasks'])\n"
        "@app.task\ndef add(x: int, y: int) -> int: return x + y\n"
        "heavy = {'pydantic', 'kombu', 'pika', 'click', 'rich', 'asyncio', 'tomllib', 'amqp_tasks.message'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )

    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("task", "shared_task"),
        ("Celery", "use App"),
        ("exceptions", r"amqp_tasks\.errors"),
        ("maybe_signature", "use signature"),
        ("subtask", "use signature"),
    ],
)
def test_old_names_tell_the_new_one(name: str, said: str) -> None:
    with pytest.raises(ImportError, match=said):
        exec(f"from amqp_tasks import {name}")


def test_what_only_celerys_control_has_is_told_what_to_do() -> None:
    control: Any = App("proj").control

    for name, remedy in _control._CELERYS.items():
        with pytest.raises(
            AttributeError, match=f"no attribute '{name}', which is Celery's: {re.escape(remedy)}"
        ):
            getattr(control, name)()
    with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
        control.nonsense  # noqa: B018


def test_what_only_celerys_app_result_and_task_have_is_told_what_to_do() -> None:
    app: Any = App("proj")
    task: Any = app.task(lambda: None)
    tables = ((app, _celerys.APP), (app.AsyncResult("id"), _celerys.RESULT), (task, _celerys.TASK))

    for owner, celerys in tables:
        for name, remedy in celerys.items():
            with pytest.raises(
                AttributeError, match=f"no attribute '{name}', which is Celery's: {re.escape(remedy)}"
            ):
                getattr(owner, name)
        with pytest.raises(AttributeError, match=r"has no attribute 'nonsense'$"):
            owner.nonsense  # noqa: B018


def test_a_property_that_lacks_an_attribute_itself_says_which() -> None:
    class Odd(Task[..., Any]):
        asked = 0

        @property
        def price(self) -> int:
            Odd.asked += 1
            name: Any = self.name
            return name.no_such_method()  # type: ignore[no-any-return]

    task: Any = App("proj").task(base=Odd)(lambda: None)

    with pytest.raises(AttributeError, match="'str' object has no attribute 'no_such_method'"):
        task.price  # noqa: B018
    assert Odd.asked == 1


def test_settings_whose_code_lacks_an_attribute_are_asked_once_by_the_app() -> None:
    class Annotating:
        asked = 0

        def annotate(self, task: Any) -> dict[str, Any]:
            self.asked += 1
            return task.no_such_option  # type: ignore[no-any-return]

    annotating = Annotating()
    app = App("proj", broker="memory://", task_annotations=annotating)
    app.task(lambda: None)

    with pytest.raises(AttributeError, match="no_such_option"):
        _ = app.topology
    assert annotating.asked == 1


def test_an_attribute_that_is_missing_is_told_when_nothing_can_be_imported_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in `__del__` at the end of the interpreter, where an ImportError would take the place of the default."""
    app: Any = App("proj")
    owners = (app, app.AsyncResult("id"), app.task(lambda: None))
    monkeypatch.setitem(sys.modules, "amqp_tasks.app._celerys", None)

    assert [getattr(owner, "session", "none") for owner in owners] == ["none"] * 3


def test_a_base_before_or_behind_task_may_have_what_is_celerys() -> None:
    class Having:
        backend = "theirs"

        @property
        def Strategy(self) -> str:
            return "theirs, too"

    class Before(Having, Task[..., Any]):
        pass

    class Behind(Task[..., Any], Having):
        pass

    app = App("proj")

    for base in (Before, Behind):
        task: Any = app.task(base=base, name=base.__name__)(lambda: None)
        assert (task.backend, task.Strategy, base.backend) == ("theirs", "theirs, too", "theirs")
        task.is_aborted = lambda: True
        assert task.is_aborted()


def test_a_base_behind_task_may_find_attributes_itself() -> None:
    class Finding:
        def __getattr__(self, name: str) -> str:
            if name != "session":
                raise AttributeError(f"nobody finds {name}")
            return "found"

    class Found(Task[..., Any], Finding):
        pass

    task: Any = App("proj").task(base=Found)(lambda: None)

    assert task.session == "found"
    with pytest.raises(AttributeError, match="nobody finds price"):
        task.price  # noqa: B018
