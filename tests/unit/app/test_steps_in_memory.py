"""Workflows of named steps on the embedded broker, so that users' tests see what RabbitMQ would give."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from queue import SimpleQueue
from typing import Any

import pytest

from amqp_tasks import App, AsyncResult, Task, Workflow
from amqp_tasks.app._look import Look
from amqp_tasks.errors import BrokerUnreachable, ConfigurationError, PublishNacked, WorkflowFailed
from amqp_tasks.message import OutgoingMessage, StepMark
from support import eventually

broken: set[str] = set()
runs: list[str] = []


@pytest.fixture
def app() -> Iterator[App]:
    """An app with a worker in a thread."""
    broken.clear()
    runs.clear()
    with App("embedded-steps", broker=f"memory://{uuid.uuid4().hex}/") as made:

        @made.task(name="add")
        def add(*values: int) -> int:
            return sum(values)

        @made.task(name="load")
        def load(*values: int, key: str) -> int:
            runs.append(key)
            if key in broken:
                raise ValueError("broken")
            return sum(values) + 1

        worker = made.Worker(pool="threads", concurrency=2)
        thread = threading.Thread(target=worker.start, name="embedded-worker")
        thread.start()
        try:
            assert worker.ready.wait(10)
            yield made
        finally:
            worker.stop(timeout=5)
            thread.join(10)


def steps(app: App) -> Workflow:
    add, load = app.tasks["add"], app.tasks["load"]
    workflow = Workflow().step("a", load.s(key="a")).step("b", load.s(key="b"), after="a")
    workflow.step("c", load.s(key="c"), after="a").step("d", add.s(), after=["b", "c"])
    return workflow.step("e", add.s(100), after="d")


def test_steps_get_the_values_of_those_that_they_need(app: App) -> None:
    result = steps(app).delay(1)

    assert result.get(timeout=10) == {"a": 2, "b": 3, "c": 3, "d": 6, "e": 106}
    assert result.graph().states == dict.fromkeys("abcde", "SUCCESS")


def test_a_failed_workflow_goes_on_where_it_failed(app: App) -> None:
    broken.update("bc")
    result = steps(app).delay(1)
    with pytest.raises(WorkflowFailed):
        result.get(timeout=10)
    eventually(lambda: held(app, result.id, "bc"))

    broken.clear()
    done = result.resume()

    assert (done.count, done.failures) == (2, ())
    assert result.get(timeout=10) == {"a": 2, "b": 3, "c": 3, "d": 6, "e": 106}
    assert sorted(runs) == ["a", "b", "b", "c", "c"]
    assert app.workflows.failed_steps(result.id) == []


def test_an_id_is_in_use_while_a_step_waits_for_others(app: App) -> None:
    """It is no lock: what was sent twice ran twice, though the page said that it could not be sent."""
    load = app.tasks["load"]
    waiting = Workflow(id="w").step("a", load.s(key="a")).step("b", load.s(key="b"))
    waiting.step("c", load.s(key="c"), after=["a", "b"])
    travelling = Workflow(id="t").step("a", load.s(key="x")).step("b", load.s(key="y"), after="a")
    broken.update("ay")
    for each in (waiting, travelling):
        each.delay().get(timeout=10, propagate=False)

    with pytest.raises(ConfigurationError, match="'w' is running or has failed"):
        waiting.delay()
    broken.clear()

    assert travelling.delay().get(timeout=10) == {"a": 1, "b": 2}
    eventually(lambda: held(app, "w", "a"))
    assert app.workflows.resume("w").count == 1
    eventually(lambda: gone(app, "amqp_tasks.join.w.0"))
    assert waiting.delay().get(timeout=10) == {"a": 1, "b": 1, "c": 3}


@pytest.mark.parametrize("count", [0, 1])
def test_an_id_is_in_use_for_a_workflow_that_has_fewer_joins_too(app: App, count: int) -> None:
    """Only as many queues were asked for as the new one has: it ran beside the old one, and giving one up removed queues of both."""
    load, add = app.tasks["load"], app.tasks["add"]
    before = Workflow(id="w").step("a", load.s(key="a")).step("b", load.s(key="b"))
    before.step("c", add.s(), after=["a", "b"])
    before.step("d", load.s(key="d"), after="c").step("e", add.s(), after=["c", "d"])
    now = Workflow(id="w").step("a", load.s(key="a")).step("b", load.s(key="b"))
    if count:
        now.step("c", add.s(), after=["a", "b"])
    broken.add("d")
    before.delay().get(timeout=10, propagate=False)
    eventually(lambda: gone(app, "amqp_tasks.join.w.0"))

    with pytest.raises(ConfigurationError, match="'w' is running or has failed"):
        now.delay()

    eventually(lambda: held(app, "w", "d"))
    app.workflows.discard("w")
    assert now.delay().get(timeout=10)["b"] == 1


def gone(app: App, queue: str) -> None:
    assert app.transport.queue_status(queue) is None


def test_one_step_is_resumed_alone_and_the_others_wait(app: App) -> None:
    broken.update("bc")
    result = steps(app).delay(1)
    assert result.get(timeout=10, propagate=False)["a"] == 2
    eventually(lambda: held(app, result.id, "bc"))

    broken.clear()
    assert app.workflows.resume(result.id, steps=["b"]).count == 1
    eventually(lambda: ran(["a", "b", "b", "c"]))
    held(app, result.id, "c")

    assert result.resume().count == 1
    assert result["e"].get(timeout=10) == 106


def test_what_could_not_be_resumed_is_known_as_before_and_can_be_once_more(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`get` waited for ever, and a second `resume` said that the workflow had not ended."""
    broken.update("bc")
    result = steps(app).delay(1)
    result.get(timeout=10, propagate=False)
    eventually(lambda: held(app, result.id, "bc"))
    broken.clear()

    with monkeypatch.context() as refusing:
        send, refused = app.transport.publish_many, PublishNacked("full")

        def send_but_b(messages: list[OutgoingMessage], **options: Any) -> Sequence[Exception | None]:
            if not any(each.properties.correlation_id == result["b"].id for each in messages):
                return send(messages, **options)
            others = [each for each in messages if each.properties.correlation_id != result["b"].id]
            outcomes = iter(send(others, **options))
            return [next(outcomes) if each in others else refused for each in messages]

        refusing.setattr(app.transport, "publish_many", send_but_b)
        done = result.resume()

    assert [error for _, error in done.failures] == [refused]
    assert result["c"].get(timeout=10) == 3
    assert result.states == {"a": "SUCCESS", "b": "FAILURE", "c": "SUCCESS", "d": "NOT_RUN", "e": "NOT_RUN"}
    assert result.resume().count == 1
    assert result.get(timeout=10)["e"] == 106


def test_a_resume_that_ends_half_way_waits_for_what_runs_again(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.update("bc")
    result = steps(app).delay(1)
    result.get(timeout=10, propagate=False)
    eventually(lambda: held(app, result.id, "bc"))
    broken.clear()

    def die(*_: Any) -> None:
        raise BrokerUnreachable("gone")

    with monkeypatch.context() as dying:
        dying.setattr(Look, "remove", die)
        with pytest.raises(BrokerUnreachable):
            result.resume()

    assert result.get(timeout=10)["e"] == 106


def test_a_resume_that_cannot_begin_leaves_the_result_as_it_was(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken.add("b")
    result = steps(app).delay(1)
    result.get(timeout=10, propagate=False)
    eventually(lambda: held(app, result.id, "b"))

    def die(*_: Any, **options: Any) -> None:
        raise BrokerUnreachable("gone")

    with monkeypatch.context() as dying:
        dying.setattr(app.transport, "publish_many", die)
        with pytest.raises(BrokerUnreachable):
            result.resume()

    assert (result.state, result.states["e"]) == ("FAILURE", "NOT_RUN")
    broken.clear()
    assert result.resume().count == 1
    assert result.get(timeout=10)["e"] == 106


def test_a_step_that_is_still_broken_is_told_again(app: App) -> None:
    broken.add("b")
    result = steps(app).delay(1)
    result.get(timeout=10, propagate=False)
    eventually(lambda: held(app, result.id, "b"))

    result.resume()

    with pytest.raises(WorkflowFailed) as caught:
        result.get(timeout=10)
    assert caught.value.not_run == ("d", "e")
    eventually(lambda: held(app, result.id, "b"))


def test_what_is_given_up_is_gone(app: App) -> None:
    broken.add("b")
    result = steps(app).delay(1)
    result.get(timeout=10, propagate=False)
    eventually(lambda: held(app, result.id, "b"))

    assert app.workflows.discard(result.id) == 1
    assert app.workflows.failed_steps() == []
    assert app.workflows.resume(result.id).count == 0
    assert app.transport.queue_status(f"amqp_tasks.join.{result.id}.1") is None


def test_a_call_that_gets_the_headers_of_a_step_is_no_step(app: App) -> None:
    """The workflow ended well, and was listed as failed in a step that has not."""
    broken.add("other")
    load = app.tasks["load"]
    own: SimpleQueue[tuple[Any, dict[str, Any]]] = SimpleQueue()
    calls: SimpleQueue[AsyncResult[Any]] = SimpleQueue()

    @app.task(name="passing", bind=True)
    def passing(self: Task[..., Any]) -> None:
        own.put((self.request.mark, self.request.headers))
        calls.put(load.apply_async((), {"key": "other"}, headers=self.request.headers))

    result = Workflow().step("one", passing.s().set(headers={"x-tenant": "t"})).delay()

    assert result.get(timeout=10) == {"one": None}
    assert own.get(timeout=1) == (StepMark(workflow_id=result.id, step="one", joins=0), {"x-tenant": "t"})
    with pytest.raises(ValueError, match="broken"):
        calls.get(timeout=1).get(timeout=10)
    assert app.workflows.failed_steps() == []


def test_a_step_that_is_its_own_successor_stays_the_step(app: App) -> None:
    @app.task(name="rebuilt", bind=True)
    def rebuilt(self: Task[..., Any], value: int) -> None:
        assert self.request.mark is not None
        if value:
            raise ValueError("broken")
        raise self.replace(self.signature_from_request(args=(value + 1,)))

    result = Workflow().step("one", rebuilt.s(0)).delay()

    with pytest.raises(WorkflowFailed):
        result.get(timeout=10)
    eventually(lambda: held(app, result.id, ["one"]))


def held(app: App, workflow_id: str, names: Iterable[str]) -> None:
    assert sorted(each.step for each in app.workflows.failed_steps(workflow_id)) == list(names)


def ran(expected: list[Any]) -> None:
    assert sorted(runs) == expected


def test_a_step_of_an_earlier_workflow_with_the_same_id_gives_nothing_to_the_later_one(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its worker had died before it acked, so it is delivered once more."""
    go = threading.Event()

    @app.task(name="give")
    def give(value: int) -> int:
        assert value != 100 or go.wait(10)
        return value

    def nightly(value: int) -> Workflow:
        workflow = Workflow(id="nightly").step("a", give.s(value)).step("b", give.s(10))
        return workflow.step("sum", app.tasks["add"].s(), after=["a", "b"])

    sent: list[OutgoingMessage] = []
    publish_many = app.transport.publish_many

    def noted(messages: Iterable[OutgoingMessage], **more: Any) -> Sequence[Any]:
        sent.extend(found := list(messages))
        return publish_many(found, **more)

    monkeypatch.setattr(app.transport, "publish_many", noted)
    assert nightly(1).delay().get(timeout=10)["sum"] == 11
    (late,) = (each for each in sent if each.body.startswith(b"[[1]"))

    result = nightly(100).delay()
    app.transport.publish(late)
    # The definition, the outcome of the later `b`, and that of the earlier `a`.
    eventually(lambda: _is(depth_of(app, "amqp_tasks.join.nightly.0"), 3))
    go.set()

    assert result.get(timeout=10)["sum"] == 110


def depth_of(app: App, queue: str) -> int | None:
    status = app.transport.queue_status(queue)
    return None if status is None else status.messages


def _is(found: object, expected: object) -> None:
    assert found == expected
