"""Reading header tables whose shape was seen before."""

from __future__ import annotations

from struct import error as struct_error

import pytest
from hypothesis import given
from hypothesis import strategies as st

from amqp_tasks.transport.rabbitmq._codec import _read_item, decode_table, encode_table_items
from amqp_tasks.transport.rabbitmq._shapes import TableShapes


def _table(number: int, **more: object) -> bytes:
    """A task message's table as RabbitMQ sorts it: texts that vary between runs that do not."""
    return encode_table_items(
        {
            "argsrepr": f"({number},)",
            "eta": None,
            "group": None,
            "id": f"id-{number}",
            "lang": "py",
            "origin": "gen1@host",
            "retries": 0,
            "root_id": f"id-{number}",
            "stamps": {},
            "task": "shop.mail",
            "timelimit": [None, None],
            **more,
        }
    )


def test_a_huge_table_is_read_and_not_learnt_from() -> None:
    shapes = _shapes()

    for number in range(3):
        table = _table(number, **{f"k{each}": each for each in range(2000)})
        assert shapes.read(table) == decode_table(table)

    assert not shapes._known


def _shapes() -> TableShapes:
    return TableShapes(_read_item)


def test_a_shape_is_learnt_from_two_tables_and_read_equal() -> None:
    shapes = _shapes()
    tables = [_table(number) for number in range(8)]

    assert [shapes.read(table) for table in tables] == [decode_table(table) for table in tables]
    assert len(shapes._known) == 1


def test_numbers_and_lists_may_vary_within_a_shape() -> None:
    shapes = _shapes()
    tables = [_table(number, group_index=number, joins=[["queue", number, 9]]) for number in range(8)]

    assert [shapes.read(table) for table in tables] == [decode_table(table) for table in tables]
    assert len(shapes._known) == 1


def test_what_was_nothing_once_may_be_text_later() -> None:
    shapes = _shapes()
    tables = [_table(number, parent_id=f"id-{number}" if number % 2 else None) for number in range(8)]

    assert [shapes.read(table) for table in tables] == [decode_table(table) for table in tables]
    assert len(shapes._known) == 1


def test_messages_never_share_a_container() -> None:
    shapes = _shapes()
    first, second, third = (shapes.read(_table(number)) for number in range(3))

    third["timelimit"].append(1)
    third["stamps"]["a"] = 1

    assert shapes.read(_table(4))["timelimit"] == [None, None]
    assert first["stamps"] == second["stamps"] == {}


def test_nested_containers_are_decoded_each_time() -> None:
    shapes = _shapes()
    for number in range(3):
        shapes.read(_table(number, deep={"a": [1]}))

    shapes.read(_table(4, deep={"a": [1]}))["deep"]["a"].append(2)

    assert shapes.read(_table(5, deep={"a": [1]}))["deep"] == {"a": [1]}


@pytest.mark.parametrize("cut", [1, 3, 40, 90])
def test_a_truncated_table_of_a_known_shape_is_an_error(cut: int) -> None:
    shapes = _shapes()
    for number in range(3):
        shapes.read(_table(number))

    with pytest.raises((IndexError, ValueError, struct_error)):
        shapes.read(_table(7)[:-cut])


def test_a_text_that_is_not_utf_8_stays_bytes() -> None:
    shapes = _shapes()
    for number in range(3):
        shapes.read(_table(number))

    table = shapes.read(_table(7).replace(b"id-7", b"id-\xff"))

    assert table["id"] == table["root_id"] == b"id-\xff"


def test_the_number_of_known_shapes_is_bounded() -> None:
    shapes = _shapes()

    for task in range(40):
        for number in range(2):
            shapes.read(_table(number, task=f"task {task}"))

    assert len(shapes._known) <= TableShapes.MAX_KNOWN


def test_tables_that_are_all_different_are_learnt_from_ever_more_rarely() -> None:
    shapes = _shapes()
    for number in range(TableShapes.ALWAYS_LEARN + 10):
        shapes.read(_table(number, **{f"unlike-{number}": number}))
    before = shapes._known

    shapes.read(_table(1))
    shapes.read(_table(2))

    assert shapes._known == before


def test_no_two_shapes_are_tried_on_a_huge_table() -> None:
    calls: list[int] = []

    def counted(table: dict[str, object], data: bytes, offset: int, end: int, depth: int) -> int:
        calls.append(offset)
        return _read_item(table, data, offset, end, depth)

    shapes = TableShapes(counted)
    for task in ("a", "b", "c"):
        for number in range(2):
            shapes.read(_table(number, argument=number, task=task))
    huge = _table(7, argument=list(range(5000)), task="d")
    calls.clear()

    shapes.read(huge)

    assert len(calls) == len(decode_table(huge))


_values = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=40)
_items = st.dictionaries(
    st.text(min_size=1, max_size=20), _values | st.lists(_values, max_size=3), max_size=8
)


@given(
    shared=_items,
    others=st.lists(_items, min_size=2, max_size=6),
    texts=st.lists(st.text(max_size=30), max_size=6),
)
def test_any_tables_are_read_as_without_shapes(
    shared: dict[str, object], others: list[dict[str, object]], texts: list[str]
) -> None:
    shapes = _shapes()
    tables = [encode_table_items({**shared, **own}) for own in others]
    tables += [encode_table_items({"id": text, **shared, "root_id": text}) for text in texts]

    for table in (*tables, *tables):
        assert shapes.read(table) == decode_table(table)
