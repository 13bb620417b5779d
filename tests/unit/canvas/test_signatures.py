"""Signatures are values: what they hold, how they compare, what composing them gives (S114, S115, S118, S119, P042-P050)."""

from __future__ import annotations

import copy
import json
import operator
import pickle
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from amqp_tasks.canvas import Signature, _signature, chain, chord, chunks, freeze, group, signature, xmap
from amqp_tasks.errors import ConfigurationError, Replaced
from amqp_tasks.message import bounded_repr
from amqp_tasks.serialization import DEFAULT_LIMITS, dumps, loads


def add(*args: object, **options: object) -> Signature:
    return Signature("tasks.add", args, options=options)


def through_json(value: Signature) -> Signature:
    content_type, encoding, body = dumps("json", value, parts=())
    return signature(loads(content_type, encoding, body, accept=("json",), limits=DEFAULT_LIMITS))


@pytest.mark.parametrize(
    "value",
    [
        add(2, 2),
        Signature("tasks.add", (1,), {"y": 2}, {"countdown": 10}, immutable=True),
        chain(add(1, 1), add(2)),
        group(add(1, 1), add(2, 2)),
        chord([add(1, 1), add(2, 2)], Signature("tasks.total")),
        chain(add(1, 1), group(add(2), add(3)), Signature("tasks.total"), add(1)),
        xmap(add(), [1, 2]),
        chunks(add(), zip(range(5), range(5), strict=True), 2),
    ],
)
def test_a_signature_that_went_through_json_is_equal_and_of_the_same_kind(value: Signature) -> None:
    back = through_json(value)
    assert back == value
    assert type(back) is type(value)
    assert pickle.loads(pickle.dumps(value)) == value
    assert copy.deepcopy(value) == value


@pytest.mark.parametrize(
    "value",
    [
        add((1, 2)),
        add({"at": [(1, (2, 3))]}),
        Signature("tasks.add", kwargs={"x": (1, 2)}),
        xmap(add(), [(1, 2)]),
        group(add((1, 2)), chain(add(), add(((),)))),
    ],
)
def test_a_tuple_in_a_signature_is_equal_to_the_list_that_json_makes_of_it(value: Signature) -> None:
    back = signature(json.loads(json.dumps(value)))

    assert back == value
    assert value == back
    assert not operator.ne(back, value)
    assert hash(back) == hash(value)
    assert [value].index(back) == 0


def test_signatures_with_other_values_are_not_equal() -> None:
    others = [
        add((1, 3)), add((1,)), add((1, 2), 3), add("12"), add({1: 2}), add((1, 2), queue="q"), Signature("t", ((1, 2),)),
    ]  # fmt: skip

    assert all(add((1, 2)) != other for other in others)
    assert not any(add((1, 2)) == other for other in others)
    assert add((1, 2)) != "tasks.add"


def test_a_time_in_the_options_is_equal_after_the_serializer() -> None:
    value = add(1, eta=datetime(2026, 11, 21, 12, tzinfo=UTC), expires=datetime(2026, 11, 22, tzinfo=UTC))

    assert through_json(value) == value


def test_its_dictionary_is_of_the_shape_that_celery_writes() -> None:
    assert json.loads(json.dumps(add(2, 2, countdown=10))) == {
        "task": "tasks.add",
        "args": [2, 2],
        "kwargs": {},
        "options": {"countdown": 10},
        "subtask_type": None,
        "immutable": False,
    }


def test_a_signature_of_celery_is_one_of_ours_and_back() -> None:
    import celery

    app = celery.Celery("x", set_as_current=False)
    theirs = celery.chain(
        app.signature("tasks.add", (1, 1)),
        celery.group([app.signature("tasks.add", (i,)) for i in range(2)], app=app),
        app=app,
    )
    ours = signature(json.loads(json.dumps(theirs)))
    assert isinstance(ours, chain)
    assert isinstance(ours.tasks[1], group)
    again = app.signature(json.loads(json.dumps(ours)))
    assert json.loads(json.dumps(again)) == json.loads(json.dumps(theirs))


def test_its_repr_reads_like_the_call() -> None:
    assert repr(Signature("part2.tasks.add", (2, 2))) == "part2.tasks.add(2, 2)"
    assert repr(Signature("t", (1,), {"y": "a"})) == "t(1, y='a')"
    assert repr(chain(add(1), add(2))) == "tasks.add(1) | tasks.add(2)"
    assert repr(group(add(1), add(2)) | add(3)) == "group(tasks.add(1), tasks.add(2)) | tasks.add(3)"


def test_its_repr_is_short_and_costs_no_more_for_a_large_one() -> None:
    shown: list[int] = []

    class Seen:
        def __repr__(self) -> str:
            shown.append(1)
            return "seen"

    seen = Seen()
    wide: list[object] = [seen] * 100
    for _ in range(20):
        wide = [wide] * 100
    members = [Signature("t", (number,)) for number in range(10_000)]
    nested: Signature = add()
    for _ in range(10_000):
        nested = group([nested]) if nested.subtask_type is None else Signature("t", (nested,))
    texts = [
        repr(Signature("t", (wide,) * 1000, {f"k{number}": wide for number in range(1000)})),
        repr(group(members)),
        repr(chain(members)),
        repr(nested),
        repr(Signature("t", ("x" * 10**6, 10**4000))),
    ]

    assert len(shown) <= 500
    assert all(len(text) < 5000 for text in texts)
    assert texts[1].startswith("group(t(0), t(1), ")
    assert texts[1].endswith(", t(39), ...)")
    assert texts[2].endswith("| t(39) | ...")
    assert texts[4].startswith(f"t('{'x' * 59}…, 1000")
    assert bounded_repr([add(1)]) == "[tasks.add(1)]"


def test_its_repr_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise RuntimeError

        has_secrets = __repr__

    def nobody() -> Any:
        raise ConfigurationError("no app")

    monkeypatch.setattr(_signature, "others", [nobody])
    assert repr(add(1)) == "tasks.add(1)"
    assert "Hostile" in repr(add(1, Hostile()))
    assert repr(Signature("t", (10**5000, 1))) == "t(<int: repr failed>, 1)"
    assert repr(chain.from_fields({**chain(add(1)), "kwargs": {"tasks": [7, {"task": "t", "args": 3}]}}))
    assert repr(group.from_fields({**group(), "kwargs": {}})) == "<group: repr failed>"
    assert repr(add("s3cret").bound_to(cast("Any", Hostile()))) == "tasks.add(***)"


def test_its_repr_reads_no_generator() -> None:
    read: list[int] = []

    def calls() -> Iterator[Signature]:
        read.append(1)
        yield add(1)

    assert repr(chain(group(calls()))) == "group(...)"
    assert read == []


def test_nothing_can_change_a_signature_in_place() -> None:
    value = add(1)
    changes: tuple[Callable[[], object], ...] = (
        lambda: value.update(task="x"),
        lambda: value.pop("task"),
        lambda: value.__setitem__("task", "x"),
        value.clear,
    )
    for change in changes:
        with pytest.raises(TypeError, match="cannot be changed"):
            change()
    assert value.set(countdown=3) == add(1, countdown=3)
    assert value.clone((9,), {"z": 1}).args == (9, 1)
    assert value == add(1)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [
        ("args", "replace(args=...) returns a changed copy"),
        ("kwargs", "replace(kwargs=...) returns a changed copy"),
        ("options", "replace(options=...) returns a changed copy"),
        ("immutable", "set(immutable=...) returns a changed copy"),
        ("id", "set(task_id=...) returns a changed copy"),
        ("task", "make another signature"),
    ],
)
def test_who_sets_a_part_of_a_signature_is_told_what_to_do(name: str, remedy: str) -> None:
    for made in (Signature("add", (1, 2)), group([Signature("add")])):
        with pytest.raises(AttributeError) as caught:
            setattr(made, name, ())
        assert str(caught.value) == f"{name!r} of a signature cannot be set: {remedy}"


def test_who_sets_the_tasks_of_a_composition_is_told_what_to_do() -> None:
    with pytest.raises(AttributeError, match="'tasks' of a signature cannot be set: make another signature"):
        setattr(group([Signature("add")]), "tasks", [])  # noqa: B010 - a type checker refuses it


def test_what_a_signature_holds_cannot_be_changed_in_place_either() -> None:
    fields: dict[str, Any] = {"task": "t", "args": [1], "kwargs": {"x": 1}, "options": {"queue": "q"}}
    value: Any = signature(fields)
    composed: Any = signature({**chain(add(1)), "kwargs": {"tasks": [add(1)]}})
    linked: Any = add(1).link(add(2))
    changes: tuple[Callable[[], object], ...] = (
        lambda: value["args"].append(9),
        lambda: value.kwargs.update(x=2),
        lambda: value["kwargs"].pop("x"),
        lambda: value.options.update(countdown=5),
        lambda: value.options.__ior__({"countdown": 5}),
        value.clone((2,)).set(priority=1).options.clear,
        lambda: linked.options["link"].append(add(3)),
        lambda: composed.kwargs["tasks"].append(add(3)),
        lambda: group(add(1)).kwargs["tasks"].append(add(3)),
        lambda: xmap(add(), [1]).kwargs["it"].append(2),
    )
    for change in changes:
        with pytest.raises((TypeError, AttributeError), match=r"cannot be changed|'tuple' object"):
            change()
    fields["args"].append(2)
    fields["kwargs"]["x"] = fields["options"]["queue"] = "other"
    assert value == Signature("t", (1,), {"x": 1}, {"queue": "q"})


def test_copies_of_what_a_signature_holds_are_plain_dictionaries() -> None:
    held: Any = add(1, headers={"a": 1}).options

    for copied in (copy.copy(held), copy.deepcopy(held), pickle.loads(pickle.dumps(held)), {**held}):
        assert type(copied) is dict
        assert copied == {"headers": {"a": 1}}


def test_an_immutable_signature_takes_no_further_arguments_but_options() -> None:
    value = Signature("t", (1,), immutable=True)
    assert value.clone((9,), {"z": 1}, queue="q") == Signature(
        "t", (1,), options={"queue": "q"}, immutable=True
    )


def test_a_callback_is_linked_once_however_often_it_is_linked() -> None:
    linked = add(1).link(add(2)).link(add(2)).link(add(3)).on_error(add(4))
    assert linked.options == {"link": [add(2), add(3)], "link_error": [add(4)]}


def test_the_operator_builds_chains_and_chords() -> None:
    a, b, c, d = add(1), add(2), add(3), add(4)
    assert a | b | c == chain(a, b, c)
    assert a | (b | c) == chain(a, b, c)
    assert (a | b) | (c | d) == chain(a, b, c, d)
    assert type(group(a, b) | c) is chord
    assert group(a, b) | c == chord(group(a, b), c)
    assert group(a, b) | c | d == chord(group(a, b), c | d)
    assert a | group(b, c) == chain(a, group(b, c))
    assert a | group(b, c) | d == chain(a, chord(group(b, c), d))
    assert group(a, b) | group(c, d) == chord(group(a, b), group(c, d))
    assert a | group([]) == chain(a, group([]))
    assert a | group([]) | d == chain(a, chord(group([]), d))
    flow = a
    flow |= b
    assert flow == chain(a, b)
    assert a == add(1)


def test_chains_in_chains_and_groups_in_groups_are_taken_apart() -> None:
    a, b, c = add(1), add(2), add(3)
    assert chain(a, chain(b, c)) == chain(a, b, c)
    assert group(a, group(b, c)) == group(a, b, c)
    assert group([a, group([b], queue="q")]) == group(a, b.set(queue="q"))
    assert chain(a, chain(b, c).set(task_id="x")).tasks == (a, b, c.set(task_id="x"))


def test_options_of_a_chain_go_where_they_belong() -> None:
    a, b, c = add(1), add(2), add(3)
    steps = chain(a, b).set(countdown=5, task_id="last").link(c).link_error(c).steps
    assert steps == (
        add(1, link_error=[c], countdown=5),
        add(2, task_id="last", link=[c], link_error=[c]),
    )


def test_what_is_no_signature_is_refused_where_it_is_put_in() -> None:
    makers: tuple[Callable[[], object], ...] = (
        lambda: group(add(1), 5),
        lambda: chain(add(1), None),
        lambda: chord([add(1)], object()),
        lambda: group([add(1), "add"]),
        lambda: chain("add", add(1)),
        lambda: chord([add(1)], "add"),
        lambda: add(1).link("x"),  # type: ignore[arg-type]
        lambda: signature({"args": []}),
    )
    for make in makers:
        with pytest.raises(ConfigurationError, match="must be a signature"):
            make()
    with pytest.raises(ConfigurationError, match="args of signature 't' must be a list"):
        signature({"task": "t", "args": 5})
    with pytest.raises(ConfigurationError, match="needs 'tasks'"):
        signature({"task": "celery.chain", "subtask_type": "chain"})


@pytest.mark.parametrize("kind", [["group"], {"group": 1}, 7, True])
def test_a_kind_that_is_no_text_is_refused(kind: object) -> None:
    with pytest.raises(
        ConfigurationError, match=r"subtask_type of signature 't' must be text or null, got \w+"
    ):
        signature({"task": "t", "subtask_type": kind})


def fields_around(kind: str, field: str, name: str, is_list: bool) -> dict[str, Any]:
    """A dictionary that is in itself, by way of another."""
    outer: dict[str, Any] = {"task": "t", "subtask_type": kind or None, "kwargs": {}, "options": {}}
    inner: dict[str, Any] = {**outer, "kwargs": {}, "options": {}}
    for fields, held in ((outer, inner), (inner, outer)):
        fields["kwargs"] |= dict.fromkeys(("tasks", "header", "body"), ())
        fields[field][name] = [held] if is_list else held
    return outer


@pytest.mark.parametrize(
    "around",
    [
        fields_around("group", "kwargs", "tasks", is_list=True),
        fields_around("chain", "kwargs", "tasks", is_list=True),
        fields_around("chord", "kwargs", "header", is_list=False),
        fields_around("chord", "kwargs", "body", is_list=False),
        fields_around("", "options", "link", is_list=True),
        fields_around("", "options", "link_error", is_list=False),
    ],
)
def test_a_dictionary_that_contains_itself_is_refused(around: dict[str, Any]) -> None:
    uses: tuple[Callable[[], object], ...] = (
        lambda: signature(around),
        lambda: add(1).link(around),
        lambda: chain(add(1), around),
        lambda: group([add(1), around]),
        lambda: chord([add(1)], around),
        lambda: add(1) | around,
        lambda: freeze(chain(add(1).set(link=around)), lambda: "id", lambda _: {}),
    )
    for use in uses:
        with pytest.raises(ConfigurationError, match="signature 't' contains itself"):
            use()


def test_a_dictionary_may_be_a_part_of_another_more_than_once() -> None:
    part: dict[str, Any] = dict(add(1))
    pair = {**group(), "kwargs": {"tasks": [part, part]}}

    assert group([pair, pair]) == group([add(1)] * 4)
    assert add(1).link(part).set(link_error=[part]).options == {"link": [add(1)], "link_error": [part]}


def test_a_replaced_signature_is_a_copy_with_other_arguments_or_options() -> None:
    value = Signature("t", (1,), {"y": 2}, {"queue": "q"}, immutable=True)

    assert value.replace(args=(5, 6)) == Signature("t", (5, 6), {"y": 2}, {"queue": "q"}, immutable=True)
    assert value.replace((), {"z": 3}, {}) == Signature("t", (), {"z": 3}, immutable=True)
    assert value.replace() == value
    assert type(group(add(1)).replace(options={"queue": "q"})) is group
    assert value == Signature("t", (1,), {"y": 2}, {"queue": "q"}, immutable=True)


def test_a_signature_is_not_replaced_by_what_is_none() -> None:
    text: Any = "ab"
    with pytest.raises(ConfigurationError, match="args of signature 't' must be a list"):
        Signature("t").replace(args=text)
    with pytest.raises(ConfigurationError, match="a signature of a chain needs 'tasks' in its kwargs"):
        chain(add(1)).replace(kwargs={})


def test_a_frozen_signature_is_a_copy_that_keeps_its_id() -> None:
    value = add(1)

    assert value.freeze("x") == value.set(task_id="x")
    assert value.freeze("x").freeze("y").id == "x"
    assert value.id is None
    with pytest.raises(ConfigurationError):
        value.freeze("")


def test_options_of_a_signature_are_given_by_name_as_well() -> None:
    made = signature("t", args=(1,), kwargs={"y": 2}, options={"queue": "q"}, countdown=10, immutable=True)

    assert made == Signature("t", (1,), {"y": 2}, {"queue": "q", "countdown": 10}, immutable=True)


def test_nothing_is_given_beside_a_signature_as_it_would_be_lost() -> None:
    value = add(1)
    uses: tuple[Callable[[], object], ...] = (
        lambda: signature(value, app=None),
        lambda: signature(dict(value), countdown=1),
        lambda: signature(value, (1,)),
    )
    for use in uses:
        with pytest.raises(
            ConfigurationError, match=r"a signature takes no .* beside it: write app\.signature"
        ):
            use()


def test_what_chunks_makes_is_a_group_already() -> None:
    made = chunks(add(), [(1, 1), (2, 2)], 1)

    assert made.group() == made


def test_a_group_takes_no_callback_and_says_what_to_write() -> None:
    with pytest.raises(ConfigurationError, match=r"group\(...\) \| callback"):
        group(add(1)).link(add(2))


def test_a_group_reads_its_generator_when_it_is_asked_and_once() -> None:
    read: list[int] = []

    def calls() -> Iterator[Signature]:
        for number in range(3):
            read.append(number)
            yield add(number)

    made = group(calls())
    assert read == []
    assert [member.args for member in made.stream()] == [(0,), (1,), (2,)]
    with pytest.raises(ConfigurationError, match="give the group a list"):
        list(made.stream())


def test_nobody_can_send_a_signature_that_no_app_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_signature, "others", [])
    with pytest.raises(ConfigurationError, match=r"app\.signature"):
        add(1).delay()


def test_a_skewed_group_starts_one_member_after_the_other() -> None:
    # P077
    plain = group([add(n) for n in range(4)])

    assert [each.options["countdown"] for each in plain.skew(start=0, stop=1, step=0.5).tasks] == [
        0,
        0.5,
        1,
        1,
    ]
    assert [each.options["countdown"] for each in plain.skew().stream()] == [1, 2, 3, 4]
    assert [each.options["countdown"] for each in group(add(n) for n in range(2)).skew(step=9).stream()] == [
        1,
        10,
    ]
    assert all("countdown" not in each.options for each in plain.tasks)


def test_callbacks_are_listed_with_theirs() -> None:
    # P076
    whole = add(1).link(add(2).link(add(3))).link(add(4))

    assert [each.args for each in whole.flatten_links()] == [(1,), (2,), (3,), (4,)]


def test_no_error_shows_the_arguments_of_a_signature_as_they_may_be_secrets(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(_signature, "others", [])
    part = add("4111-2222")

    with pytest.raises(ConfigurationError, match=r"^nobody is known who could send 'tasks\.add': make it"):
        part.apply_async()
    with pytest.raises(ConfigurationError, match=r"^a chord has no body: write chord\(header, body\)$"):
        chord([part]).body  # noqa: B018 - it raises
    with pytest.raises(ConfigurationError, match=r"^link of tasks\.add must be a signature, got 3:"):
        part.link(3)  # type: ignore[arg-type]  # what is refused
    assert str(Replaced(part)) == "replaced by tasks.add"
    assert str(Replaced(part.set(task_id="p-1"))) == "replaced by tasks.add[p-1]"
    assert str(Replaced(chain(part, part))) == "replaced by celery.chain"


def test_a_signature_class_of_the_users_keeps_its_own_setters_and_what_stands_behind_it() -> None:
    derived: list[tuple[type, str]] = []

    class Registered:
        def __init_subclass__(cls, *, label: str) -> None:
            derived.append((cls, label))

    class Labelled(Signature, Registered, label="mine"):
        @property
        def label(self) -> str:
            return str(self.options.get("shadow"))

        @label.setter
        def label(self, value: str) -> None:
            set_to.append(value)

    set_to = list[str]()
    Labelled("t").label = "shown"

    assert set_to == ["shown"]
    assert derived == [(Labelled, "mine")]
