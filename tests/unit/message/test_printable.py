"""Text from messages on terminals and in logs."""

from __future__ import annotations

import pytest

from amqp_tasks.message import bounded_repr, printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("pkg.add", "pkg.add"),
        ("任务 é", "任务 é"),
        ("a\nINFO forged", "a\\nINFO forged"),
        ("\x1b[31mred", "\\x1b[31mred"),
        ("\u202egnp.exe", "\\u202egnp.exe"),
        ("\ud800", "\\ud800"),
        ("a\u2028b\x85\x00", "a\\u2028b\\x85\\x00"),
        ("", ""),
    ],
)
def test_control_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    assert printable(text).isprintable()


def test_long_text_is_cut() -> None:
    assert printable("x" * 300) == "x" * 254 + "…"
    assert printable("x" * 300, 10) == "x" * 9 + "…"


@pytest.mark.parametrize("value", [None, 5, b"\x1b[31m", ["\n"], {"a": "\x1b"}])
def test_what_is_no_text_is_shown_by_its_repr(value: object) -> None:
    assert printable(value) == repr(value)


def test_a_bounded_repr_is_bounded_in_every_direction() -> None:
    deep: list[object] = []
    for _ in range(10_000):
        deep = [deep]
    values = [
        "x" * 10**6,
        b"x" * 10**6,
        [1] * 10**6,
        {n: n for n in range(10**5)},
        deep,
        {1, 2},
        {"a": {"b": [("c",)]}},
        10**4000,
    ]

    assert all(len(bounded_repr(value)) <= 1024 for value in values)
    assert bounded_repr({"a": {"b": [("c",)]}, "empty": {}}) == "{'a': {'b': [('c',)]}, 'empty': {}}"
    assert bounded_repr({"b": 1, "a": 2}) == "{'b': 1, 'a': 2}"


def test_a_container_that_says_itself_how_it_is_shown_is_asked() -> None:
    class Closed(dict[str, object]):
        def __bounded_repr__(self) -> str:
            return f"<{len(self)} values>"

    class Silent(list[str]):
        def __bounded_repr__(self) -> str:
            raise RuntimeError

    assert bounded_repr(Closed(a="s3cret")) == "<1 values>"
    assert bounded_repr([{"a": Closed(a="s3cret")}]) == "[{'a': <1 values>}]"
    assert bounded_repr(Silent(["s3cret"])) == "<Silent: repr failed>"
    assert bounded_repr(Closed(a="s3cret"), 8) == "<1 va..."
    assert bounded_repr(Closed) == repr(Closed)


def test_a_repr_that_raises_is_named() -> None:
    class Hostile(dict[str, int]):
        def __len__(self) -> int:
            raise RuntimeError

    assert bounded_repr(Hostile()) == "<Hostile: repr failed>"
