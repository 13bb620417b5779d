"""How many messages a process asks for."""

from __future__ import annotations

import threading

import pytest

from amqp_tasks.worker._prefetch import Prefetch, PrefetchTotal, percentile, wanted_prefetch


@pytest.mark.parametrize(
    ("duration", "slots", "wanted"),
    [
        (0.0, 1, 256),
        (0.00001, 1, 256),
        (0.001, 1, 20),
        (0.02, 1, 1),
        (5.0, 1, 1),
        (5.0, 8, 8),
        (0.001, 8, 160),
        (0.001, 300, 300),
    ],
)
def test_the_prefetch_is_about_twenty_milliseconds_of_work(duration: float, slots: int, wanted: int) -> None:
    assert wanted_prefetch(duration, slots=slots, maximum=256) == wanted


def test_it_starts_at_the_slots_and_grows_at_the_first_decision() -> None:
    prefetch = Prefetch(slots=1, maximum=256)

    changes = [prefetch.observe(0.0001) for _ in range(8)]

    assert prefetch.value == 200
    assert changes == [False] * 7 + [True]


def test_the_cold_first_runs_count_for_the_first_decision_only() -> None:
    prefetch = Prefetch(slots=1, maximum=256)
    for duration in (0.004, *[0.0005] * 7):
        prefetch.observe(duration)
    assert prefetch.value == 5

    for _ in range(8):
        prefetch.observe(0.00002)

    assert prefetch.value == 256


def test_it_falls_when_tasks_become_long() -> None:
    prefetch = Prefetch(slots=1, maximum=256)
    for _ in range(64):
        prefetch.observe(0.0001)
    for _ in range(16):
        prefetch.observe(1.0)

    assert prefetch.value == 1


def test_a_few_slow_runs_among_short_ones_do_not_shrink_it() -> None:
    prefetch = Prefetch(slots=1, maximum=256)
    for _ in range(8):
        prefetch.observe(0.00005)

    changed = [prefetch.observe(0.002 if number < 3 else 0.00005) for number in range(200)]

    assert not any(changed)
    assert prefetch.value == 256


def test_tasks_that_stay_slower_shrink_it() -> None:
    prefetch = Prefetch(slots=1, maximum=256)
    for _ in range(8):
        prefetch.observe(0.00005)

    for _ in range(128):
        prefetch.observe(0.002)

    assert prefetch.value == 10


def test_small_differences_do_not_move_it() -> None:
    prefetch = Prefetch(slots=1, maximum=256)
    for _ in range(64):
        prefetch.observe(0.001)
    before = prefetch.value

    changed = [prefetch.observe(duration) for duration in (0.0012, 0.0008) * 32]

    assert not any(changed)
    assert prefetch.value == before == 20


def test_a_multiplier_fixes_it() -> None:
    """Row U023."""
    prefetch = Prefetch(slots=4, maximum=256, multiplier=3)

    assert not any(prefetch.observe(0.00001) for _ in range(100))
    assert prefetch.value == 12
    assert not prefetch.restart()


def test_a_restart_forgets_what_was_seen() -> None:
    prefetch = Prefetch(slots=2, maximum=256)
    for _ in range(8):
        prefetch.observe(0.0)

    assert prefetch.restart()
    assert prefetch.value == 2
    assert not prefetch.restart()


def test_percentiles() -> None:
    assert percentile([], 0.95) == 0.0
    assert percentile([3.0], 0.95) == 3.0
    assert percentile(range(1, 101), 0.95) == 95


def test_the_last_order_has_seen_what_every_thread_wants() -> None:
    slots, held, orders = 1, 0, list[int]()
    has_ordered = threading.Event()

    def hold_one() -> None:
        nonlocal held
        held = 1
        total.update()
        has_ordered.set()

    def order(value: int) -> None:
        if not orders and not other.is_alive():
            other.start()
            # Time for the other thread to overtake, in vain when it has to wait for this order.
            has_ordered.wait(0.2)
        orders.append(value)

    total = PrefetchTotal((lambda: slots, lambda: held), order=order)
    other = threading.Thread(target=hold_one)
    slots = 10
    total.update()
    other.join(5)

    assert orders == [10, 11]


def test_an_unchanged_total_is_not_ordered() -> None:
    parts, orders = [3, 2], list[int]()
    total = PrefetchTotal((lambda: parts[0], lambda: parts[1]), order=orders.append)

    total.update()
    parts[:] = [2, 3]
    total.update()

    assert orders == []
