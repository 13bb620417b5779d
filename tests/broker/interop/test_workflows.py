"""Workflows whose steps are served by stock Celery and by us, whoever sent them (P073-P077, wire-celery 1.4, 2.8-2.12)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from amqp_tasks import App, Signature, chain, chord, group
from amqp_tasks.canvas import chunks, xmap, xstarmap
from amqp_tasks.errors import ChordError
from support import Ledger, RawClient, Vhost, WorkerProcess
from support.connected import connect
from support.interop_app import KEEPING
from support.stock_client import StockClient
from support.workers import running

pytestmark = pytest.mark.usefixtures("workers")

SIDES = ("ours", "stock")


@pytest.fixture(scope="module")
def workers(
    environment: dict[str, str], folder: Path, vhost: Vhost
) -> Iterator[tuple[WorkerProcess, WorkerProcess]]:
    """A worker of either system, each with a queue of its own, named after it."""
    with RawClient(vhost.url) as raw:
        for name in SIDES:
            raw.declare(name)
            raw.declare(f"{name}.dead", {"x-queue-type": "quorum"})
    own = [sys.executable, "-m", "amqp_tasks", "-A", "support.interop_app:keeping", "worker", "-Q", "ours"]
    stock = [sys.executable, "-m", "celery", "-A", "stock.app", "worker", "-Q", "stock", "-c", "1"]
    with (
        running([*own, "-c", "1"], environment, folder, r"\bready\b") as ours,
        running([*stock, "-l", "info"], environment, folder, r"\bready\.") as theirs,
    ):
        yield ours, theirs


@pytest.fixture(scope="module")
def client(vhost: Vhost) -> Iterator[App]:
    """Our client, connected before the first test."""
    app = App("client", broker=vhost.url, **KEEPING)
    connect(app)
    yield app
    app.close()


def _step(app: App, side: str, *args: Any, name: str = "step", **options: Any) -> Signature:
    return app.signature(name, args, options={"queue": side, **options})


ORDERS = [("ours",) * 3, ("stock",) * 3, ("ours", "stock", "ours"), ("stock", "ours", "stock")]


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_chain_of_ours_passes_from_system_to_system(client: App, order: tuple[str, ...]) -> None:
    first, *others = order
    steps = [
        _step(client, first, 0, "a"),
        *(_step(client, side, name) for name, side in zip("bc", others, strict=True)),
    ]

    result = chain(*steps).delay()

    assert result.get(timeout=15) == [0, *(f"{side}.{name}" for name, side in zip("abc", order, strict=True))]
    assert result.parent.get(timeout=15)[-1] == f"{order[1]}.b"
    assert result.parent.parent.get(timeout=15)[-1] == f"{order[0]}.a"


@pytest.mark.parametrize("order", ORDERS, ids="-".join)
def test_a_chain_of_a_stock_client_passes_from_system_to_system(
    stock_client: StockClient, order: tuple[str, ...]
) -> None:
    first, *others = order
    steps = [f"s('step', (0, 'a'), queue={first!r})"]
    steps += [f"s('step', ({name!r},), queue={side!r})" for name, side in zip("bc", others, strict=True)]

    answer = stock_client.run(f"chain({', '.join(steps)}).delay()")

    assert answer.value == [0, *(f"{side}.{name}" for name, side in zip("abc", order, strict=True))], answer


@pytest.mark.parametrize("side", SIDES)
def test_a_failing_step_ends_the_wait_for_the_last(client: App, stock_client: StockClient, side: str) -> None:
    other = SIDES[side == "ours"]
    failing = _step(client, side, "builtin", name="refuse")
    fails = f"s('refuse', ('builtin',), queue={side!r})"
    later = f"s('step', queue={other!r})"

    with pytest.raises(ValueError, match="not like this"):
        chain(failing, _step(client, other), _step(client, side)).delay().get(timeout=15)
    answer = stock_client.run(f"chain({fails}, {later}, {later}).delay()")

    assert answer.classes[0] == "builtins.ValueError", answer


@pytest.mark.parametrize("side", SIDES)
def test_a_step_that_is_retried_keeps_what_follows_it(
    client: App, stock_client: StockClient, ledger: Ledger, side: str
) -> None:
    other = SIDES[side == "ours"]
    callback = _step(client, other, f"retried{side}")
    retried = client.signature("insist", (2,), options={"queue": side, "link": callback})
    assert chain(retried, _step(client, other)).delay().get(timeout=15) == [2, f"{other}.step"]
    ledger.wait_for("step", f"{other}.retried{side}")

    answer = stock_client.run(f"chain(s('insist', (2,), queue={side!r}), s('step', queue={other!r})).delay()")

    assert answer.value == [2, f"{other}.step"], answer


def test_an_immutable_step_gets_nothing_of_the_one_before(client: App, stock_client: StockClient) -> None:
    for first, second in (SIDES, SIDES[::-1]):
        fixed = client.signature("step", (7, "x"), options={"queue": second}, immutable=True)
        assert chain(_step(client, first, 1), fixed).delay().get(timeout=15) == [7, f"{second}.x"]

        stock = f"s('step', (1,), queue={first!r}), s('step', (7, 'x'), queue={second!r}, immutable=True)"
        assert stock_client.run(f"chain({stock}).delay()").value == [7, f"{second}.x"]


def test_a_group_is_served_by_both(client: App, stock_client: StockClient) -> None:
    wanted = [[number, f"{SIDES[number % 2]}.step"] for number in range(6)]

    mine = group(_step(client, SIDES[number % 2], number) for number in range(6)).delay()
    theirs = stock_client.run(
        "group(s('step', (n,), queue=('ours', 'stock')[n % 2]) for n in range(6)).delay()"
    )

    assert mine.get(timeout=15) == wanted
    assert theirs.value == wanted


def test_a_member_of_a_group_sees_the_group(client: App, stock_client: StockClient) -> None:
    for side in SIDES:
        result = group(_step(client, side, name="describe") for _ in range(2)).delay()

        seen = result.get(timeout=15)
        assert [each["group"] for each in seen] == [result.id] * 2
        answer = stock_client.run(f"group(s('describe', queue={side!r}) for _ in range(2)).delay()")
        assert {each["group"] for each in answer.value} == {answer.task_id}


@pytest.mark.parametrize("side", SIDES)
def test_callbacks_get_the_result_on_the_other_side(
    client: App, stock_client: StockClient, ledger: Ledger, side: str
) -> None:
    other = SIDES[side == "ours"]
    callbacks = [_step(client, other, f"mine{side}{number}") for number in range(2)]
    client.signature("step", (0,)).apply_async(queue=side, link=callbacks).get(timeout=15)
    links = ", ".join(f"s('step', ('theirs{side}{n}',), queue={other!r})" for n in range(2))

    answer = stock_client.run(f"s('step', (0,)).apply_async(queue={side!r}, link=[{links}])")

    assert answer.value == [0, f"{side}.step"]
    for name in ("mine", "theirs"):
        for number in range(2):
            ledger.wait_for("step", f"{other}.{name}{side}{number}")


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("errback", ["told", "explained"])
def test_an_errback_is_called_by_the_rules_of_celery(
    client: App, stock_client: StockClient, ledger: Ledger, side: str, errback: str
) -> None:
    # With one argument it is sent, and the other system serves it; with more it is called in place.
    where = SIDES[side == "ours"] if errback == "told" else side
    call = _step(client, where, name=errback)
    mine = client.signature("refuse", ("builtin",)).apply_async(queue=side, link_error=call)
    with pytest.raises(ValueError, match="not like this"):
        mine.get(timeout=15)

    theirs = stock_client.run(
        f"s('refuse', ('builtin',)).apply_async(queue={side!r}, link_error=s({errback!r}, queue={where!r}))"
    )

    error = "" if errback == "told" else ": ValueError('not like this', 7)"
    for task_id in (mine.id, theirs.task_id):
        ledger.wait_for(f"{errback} by {where}", f"{task_id}{error}")


@pytest.mark.parametrize("side", SIDES)
def test_map_starmap_and_chunks_are_served(client: App, stock_client: StockClient, side: str) -> None:
    step = client.signature("step")
    pairs = [(1, "x"), (2, "y"), (3, "z")]
    done = [[number, f"{side}.{name}"] for number, name in pairs]

    for mine, theirs, wanted in (
        (xmap(step, [1, 2]), "app.tasks['step'].map([1, 2])", [[1, f"{side}.step"], [2, f"{side}.step"]]),
        (xstarmap(step, pairs), f"app.tasks['step'].starmap({pairs})", done),
        (chunks(step, pairs, 2), f"app.tasks['step'].chunks({pairs}, 2).group()", [done[:2], done[2:]]),
    ):
        assert mine.set(queue=side).delay().get(timeout=15) == wanted
        assert stock_client.run(f"{theirs}.apply_async(queue={side!r})").value == wanted


def test_a_stock_client_sees_callbacks_and_the_next_step_as_children(stock_client: StockClient) -> None:
    # S099
    step = "s('step', (0,), queue='ours')"
    links = ", ".join(f"s('step', (), queue='ours', task_id='child-{n}')" for n in range(2))

    linked = stock_client.run(f"{step}.apply_async(link=[{links}])")
    first = stock_client.run(f"chain({step}, s('step', queue='ours', task_id='child-2')).delay().parent")

    assert linked.children == ("child-0", "child-1"), linked
    assert first.children == ("child-2",), first


@pytest.mark.parametrize(
    "first", ["s('refuse', ('builtin',), queue='ours')", "s('unheard_of', queue='ours')"]
)
@pytest.mark.parametrize("parents", range(3))
def test_a_failed_or_refused_step_ends_the_wait_for_each_later_one_at_a_stock_client(
    stock_client: StockClient, first: str, parents: int
) -> None:
    later = "s('step', queue='stock'), group(s('step', queue='ours'), s('step', queue='stock'))"
    flow = f"chain({first}, {later}).delay()"

    answer = stock_client.run(f"{flow}.parent" if parents == 2 else f"{flow}[{parents}]")

    wanted = "builtins.ValueError" if "refuse" in first else "celery.exceptions.NotRegistered"
    assert wanted in answer.classes, answer


@pytest.mark.parametrize("side", SIDES)
def test_accumulate_gives_what_celerys_own_gives(stock_client: StockClient, side: str) -> None:
    def accumulated(args: str, kwargs: str = "{}") -> Any:
        return stock_client.run(f"s('celery.accumulate', {args}, {kwargs}, queue={side!r}).delay()").value

    assert accumulated("(1, 2)") == [1, 2]
    assert accumulated("([1, 2],)") == [[1, 2]]
    assert accumulated("([1, 2], 3)", "{'index': 0}") == [1, 2]


def test_tasks_that_every_worker_has_are_served_to_a_stock_client(stock_client: StockClient) -> None:
    # P087
    assert stock_client.run("s('celery.ping', queue='ours').delay()").value == "pong"
    cleaned = stock_client.run("s('celery.backend_cleanup', queue='ours').delay()")
    assert (cleaned.state, cleaned.value) == ("SUCCESS", None), cleaned

    pairs = [(1, "x"), (2, "y"), (3, "z")]
    in_a_chain = (
        f"chain(s('step', (0,), queue='ours'), app.tasks['step'].chunks({pairs}, 2).set(queue='ours'))"
    )
    done = [[number, f"ours.{name}"] for number, name in pairs]
    answer = stock_client.run(f"{in_a_chain}.delay()")
    assert answer.value == [done[:2], done[2:]], answer


@pytest.mark.parametrize(
    ("name", "reason", "remedy"),
    [
        ("chord_unlock", "chord-refused", "move the message to a queue of stock workers"),
        ("group", "unknown-task", "group(...).delay()"),
        ("chain", "unknown-task", "chain(...).delay()"),
        ("chord", "unknown-task", "chord(...).delay()"),
    ],
)
def test_tasks_that_only_celery_has_are_set_aside_with_the_remedy(
    stock_client: StockClient, raw_client: RawClient, name: str, reason: str, remedy: str
) -> None:
    # P087
    raw_client.purge("ours.dead")

    task_id = stock_client.send(f"celery.{name}", "an argument", queue="ours", by_name=True)

    dead = raw_client.get("ours.dead")
    assert dead.properties.correlation_id == task_id
    assert dead.headers["x-error-reason"] == reason
    assert remedy in dead.headers["x-error-message"]


def test_the_body_of_our_chord_is_served_by_a_stock_worker(client: App, ledger: Ledger) -> None:
    header = [_step(client, "ours", number) for number in range(3)]

    assert chord(header)(_step(client, "stock", "body")).get(timeout=15) == [
        [0, "ours.step"],
        [1, "ours.step"],
        [2, "ours.step"],
        "stock.body",
    ]
    after = chord(header, _step(client, "stock", "body")) | _step(client, "ours", "after")
    assert after.delay().get(timeout=15)[-2:] == ["stock.body", "ours.after"]

    failing = [*header, _step(client, "ours", "builtin", name="refuse")]
    errback = _step(client, "stock", name="told")
    failed = chord(failing, _step(client, "stock", "unseen")).on_error(errback).delay()
    with pytest.raises(ChordError, match="not like this"):
        failed.get(timeout=15)
    ledger.wait_for("told by stock", failed.id)
    assert "stock.unseen" not in ledger.keys("step")


def test_a_chord_in_a_chain_goes_on_where_a_stock_step_ended(client: App) -> None:
    header = group([_step(client, "ours", name) for name in "ab"])
    workflow = chain(
        _step(client, "ours", 0), header, _step(client, "stock", "body"), _step(client, "ours", "end")
    )

    assert workflow.delay().get(timeout=15) == [
        [0, "ours.step", "ours.a"],
        [0, "ours.step", "ours.b"],
        "stock.body",
        "ours.end",
    ]
    last = chain(_step(client, "stock", 0), header).delay()
    assert last.get(timeout=15) == [[0, "stock.step", "ours.a"], [0, "stock.step", "ours.b"]]


def test_a_stock_client_without_a_shared_store_refuses_chords_itself(stock_client: StockClient) -> None:
    answer = stock_client.run("chord([s('step', (1,))])(s('step'))")

    assert answer.classes[0] == "builtins.NotImplementedError"


BODY: dict[str, Any] = {
    "task": "step", "args": [], "kwargs": {}, "subtask_type": None, "immutable": False,
    "options": {"task_id": "body-1", "queue": "stock", "reply_to": "probe"},
}  # fmt: skip


def _send_member_of_a_stock_chord(raw: RawClient, task_id: str, embed: dict[str, Any]) -> None:
    headers = {"task": "step", "id": task_id, "lang": "py", "group": "g-1", "group_index": 0}
    raw.publish(
        "ours",
        json.dumps(
            [[1], {}, {"callbacks": None, "errbacks": None, "chain": None, "chord": None, **embed}]
        ).encode(),
        headers=headers,
        content_type="application/json",
        content_encoding="utf-8",
        reply_to="probe",
        correlation_id=task_id,
    )


def test_a_member_of_a_chord_that_is_counted_in_a_store_is_set_aside_and_all_who_wait_are_told(
    raw_client: RawClient, ledger: Ledger
) -> None:
    raw_client.declare("probe")

    _send_member_of_a_stock_chord(raw_client, "member-1", {"chord": BODY})

    told = {
        each.properties.correlation_id: json.loads(each.body)
        for each in (raw_client.get("probe"), raw_client.get("probe"))
    }
    assert {name: (record["status"], record["result"]["exc_type"]) for name, record in told.items()} == {
        "member-1": ("FAILURE", "TaskError"),
        "body-1": ("FAILURE", "TaskError"),
    }
    dead = raw_client.get("ours.dead")
    assert dead.headers["x-error-reason"] == "chord-refused"
    assert "result store" in dead.headers["x-error-message"]
    assert json.loads(dead.body)[2]["chord"] == BODY


def test_a_later_step_keeps_the_chord_and_the_group_that_a_stock_client_gave_it(
    raw_client: RawClient,
) -> None:
    raw_client.declare("later")
    later = {
        **BODY,
        "options": {
            "task_id": "later-1",
            "queue": "later",
            "chord": BODY,
            "group_id": "g-1",
            "group_index": 2,
        },
    }

    _send_member_of_a_stock_chord(raw_client, "member-2", {"chain": [later]})

    sent = raw_client.get("later")
    assert json.loads(sent.body)[2]["chord"] == BODY
    assert (sent.headers["group"], sent.headers["group_index"]) == ("g-1", 2)


@pytest.mark.parametrize("order", [SIDES, SIDES[::-1]], ids="-".join)
def test_stamps_of_either_client_are_seen_by_both_workers(
    client: App, stock_client: StockClient, order: tuple[str, ...]
) -> None:
    # P071
    steps = [_step(client, side, name="stamps") for side in order]
    mine = chain(*steps).stamp(batch="b-1", rows=[1, 2]).delay()
    first, second = (f"s('stamps', queue={side!r})" for side in order)
    stamping = "lambda whole: (whole.stamp(batch='b-1', rows=[1, 2]), whole.delay())[1]"

    answer = stock_client.run(f"({stamping})(chain({first}, {second}))")

    wanted = [[side, {"batch": "b-1", "rows": [1, 2]}, ["batch", "rows"]] for side in order]
    assert mine.get(timeout=15) == wanted
    assert answer.value == wanted, answer
