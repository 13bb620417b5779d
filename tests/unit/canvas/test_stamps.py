"""Stamps on signatures (P071)."""

from __future__ import annotations

from typing import Any

import pytest

from amqp_tasks import App, chain, chord, group
from amqp_tasks.app._signature_options import call_options
from amqp_tasks.canvas import Signature, StampingVisitor
from amqp_tasks.errors import ConfigurationError


def _stamps(call: Any) -> Any:
    return call_options(call["options"]).get("stamps")


def _sig(name: str, **options: Any) -> Signature:
    return Signature(name, options=options)


def test_a_stamped_copy_has_the_stamps_and_the_original_has_not() -> None:
    plain = _sig("a", queue="q")

    stamped = plain.stamp(batch="b-1").stamp(number=2)

    assert _stamps(stamped) == {"batch": "b-1", "number": 2}
    assert stamped.options["queue"] == "q"
    assert plain.options == {"queue": "q"}


def test_the_last_stamp_of_a_name_counts_unless_it_is_added() -> None:
    once = _sig("a").stamp(batch="b-1")

    assert _stamps(once.stamp(batch="b-2")) == {"batch": "b-2"}
    assert _stamps(once.stamp(append_stamps=True, batch=["b-2", "b-3"])) == {"batch": ["b-1", "b-2", "b-3"]}
    assert _stamps(once.stamp(append_stamps=True, other=1)) == {"batch": "b-1", "other": 1}
    assert _stamps(once.stamp(batch=("b-2", "b-3"))) == {"batch": ["b-2", "b-3"]}
    assert _stamps(once.with_stamps({"self": 1, "append_stamps": 2}))["append_stamps"] == 2


def test_all_that_is_in_a_workflow_is_stamped() -> None:
    step = _sig("a").link(_sig("callback").link(_sig("inner")))
    whole = chain(step, group(_sig("b"), _sig("c")), _sig("body")).on_error(_sig("errback"))

    first, second = whole.stamp(batch="b-1").steps

    assert isinstance(second, chord)
    callback = first.options["link"][0]
    parts = [first, callback, callback["options"]["link"][0], *second.header.tasks, second.body]
    parts += first.options["link_error"]
    assert [_stamps(part) for part in parts] == [{"batch": "b-1"}] * 7
    streamed = group(_sig("a") for _ in range(2)).stamp(batch="b-1")
    assert [_stamps(member) for member in streamed.stream()] == [{"batch": "b-1"}] * 2
    assert chord([_sig("a")]).stamp(batch="b-1").with_body(_sig("b")).body.options == {}


@pytest.mark.parametrize(
    ("stamps", "said"),
    [
        ({"batch": None}, "'batch' must be text"),
        ({"batch": [["b"]]}, "'batch' must be text"),
        ({"batch": float("nan")}, "'batch' must be text"),
        ({"x" * 256: 1}, "stamp's name"),
    ],
)
def test_what_cannot_be_a_stamp_is_refused_at_once(stamps: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError, match=said):
        _sig("a").stamp(**stamps)


def test_a_stamp_with_the_name_of_an_option_is_refused_when_it_is_sent() -> None:
    with pytest.raises(ConfigurationError, match="'queue' has the name of an option"):
        call_options(_sig("a").stamp(queue="q").options)
    with pytest.raises(ConfigurationError, match="must be names"):
        call_options({"stamped_headers": "batch"})
    with pytest.raises(ConfigurationError, match=r"give the stamps as a mapping"):
        App("any", broker="memory://").send_task("a", stamped_headers=["batch"])  # type: ignore[call-arg]


def test_stamps_are_seen_by_tasks_that_run_in_place() -> None:
    app = App("eager", broker="memory://", task_always_eager=True)

    @app.task(bind=True)
    def seen(self: Any, before: Any = None) -> dict[str, Any]:
        return dict(self.request.stamps)

    assert chain(seen.s(), seen.s()).stamp(batch="b-1").delay().get() == {"batch": "b-1"}
    assert seen.apply_async(stamps={"batch": ["b-1"]}).get() == {"batch": ["b-1"]}
    assert seen.signature(stamps={"batch": 1}).delay().get() == {"batch": 1}


class _Noting(StampingVisitor):
    """Celery's documentation's, with all of its methods."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, dict[str, Any]]] = []

    def _note(self, hook: str, part: Signature, headers: dict[str, Any]) -> None:
        self.seen.append((hook, part.task.removeprefix("celery."), headers))

    def on_signature(self, sig: Signature, **headers: Any) -> dict[str, Any]:
        self._note("signature", sig, headers)
        return {"by": sig.task, "stamped_headers": ["by"]}

    def on_chain_start(self, chain: Signature, **headers: Any) -> dict[str, Any]:
        self._note("chain", chain, headers)
        return {"in_chain": True}

    def on_chain_end(self, chain: Signature, **headers: Any) -> None:
        self._note("chain end", chain, headers)

    def on_group_start(self, group: Signature, **headers: Any) -> dict[str, Any]:
        self._note("group", group, headers)
        return {"in_group": 1}

    def on_group_end(self, group: Signature, **headers: Any) -> None:
        self._note("group end", group, headers)

    def on_chord_body(self, sig: Signature, **header: Any) -> dict[str, Any]:
        self._note("body", sig, header)
        return {"is_body": True}

    def on_callback(self, callback: Signature, **header: Any) -> dict[str, Any]:
        return {"is_callback": True}

    def on_errback(self, errback: Signature, **header: Any) -> dict[str, Any]:
        return {"is_errback": True}


def test_a_visitor_is_asked_at_each_part_and_what_it_gives_goes_to_all_in_it() -> None:
    visitor = _Noting()
    first = _sig("a").link(_sig("callback")).link_error(_sig("errback"))
    whole = chain(first, chord([_sig("b")], _sig("body")))

    one, two = whole.stamp(visitor, batch="b-1").tasks

    outer = {"batch": "b-1", "in_chain": True}
    assert _stamps(one) == {**outer, "by": "a"}
    assert _stamps(one.options["link"][0]) == {**outer, "is_callback": True, "by": "callback"}
    assert _stamps(one.options["link_error"][0]) == {**outer, "is_errback": True, "by": "errback"}
    assert isinstance(two, chord)
    assert _stamps(two.header.tasks[0]) == {**outer, "in_group": 1, "by": "b"}
    assert _stamps(two.body) == {**outer, "in_group": 1, "is_body": True, "by": "body"}
    asked = [(hook, part) for hook, part, _ in visitor.seen if hook != "signature"]
    chord_parts = [("group", "group"), ("group end", "group"), ("body", "chord")]
    assert asked == [("chain", "chain"), *chord_parts, ("chain end", "chain")]
    assert visitor.seen[0] == ("chain", "chain", {"batch": "b-1"})


def test_a_visitor_can_add_to_a_stamp_and_is_asked_for_members_of_a_generator() -> None:
    class Numbering(StampingVisitor):
        def on_signature(self, sig: Signature, **headers: Any) -> dict[str, Any]:
            return {"batch": sig.args[0]}

    members = group(Signature("a", (number,)) for number in range(2))
    stamped = members.stamp(Numbering(), append_stamps=True, batch=7)

    assert [_stamps(member) for member in stamped.stream()] == [{"batch": [7, 0]}, {"batch": [7, 1]}]
    assert _stamps(_sig("a").stamp(_Noting())) == {"by": "a"}


def test_what_is_no_visitor_and_what_is_no_stamp_is_refused() -> None:
    class Wrong(StampingVisitor):
        def on_signature(self, sig: Signature, **headers: Any) -> dict[str, Any]:
            return {"priority": 3, "batch": 1, "stamped_headers": ["batch"]}

    with pytest.raises(ConfigurationError, match="on_signature gave 'priority'"):
        _sig("a").stamp(Wrong())
    with pytest.raises(ConfigurationError, match="StampingVisitor, got object"):
        _sig("a").stamp(object())  # type: ignore[arg-type]
