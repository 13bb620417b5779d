"""What callers count, and what the account makes of it."""

from __future__ import annotations

import json

import pytest

from amqp_tasks import App
from amqp_tasks.app._account import account_of, declare_account
from amqp_tasks.cli import ExitCode, main
from amqp_tasks.errors import SendUnknown
from amqp_tasks.message import DELAYED_NAME
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.transport.rabbitmq._connection import LinkState
from support import Ledger, TcpProxy, Vhost, WorkerProcesses, eventually
from support.worker_client import WorkerClient


def counted(url: str) -> dict[str, int] | None:
    """What the account says of accepted tasks, on connections of its own."""
    with App("reader", broker=url) as reader:
        counts = account_of(reader, None).counts
    return None if counts is None else {kind: count for kind, count in counts.items() if count}


def management_of(vhost: Vhost) -> str:
    """The URL of the management API, with user and password."""
    management = vhost.management
    return management.base.removesuffix("/api").replace("://", f"://{management.user}:{management.password}@")


def test_a_report_holds_for_those_that_nobody_kept(vhost: Vhost) -> None:
    with App("caller", broker=vhost.url) as caller:
        caller.send_task("one")
        with App("early", broker=vhost.url) as early:
            early.send_task("lost to the account: its last word comes before there is one")
        assert counted(vhost.url) is None

        declare_account(caller.transport, TopologyMode.DECLARE)
        caller.send_many([("one", (), {})] * 3)
        caller.send_task("one", countdown=60)

    assert counted(vhost.url) == {"accepted": 5}


def test_a_worker_that_publishes_nothing_tells_what_it_has_done(
    vhost: Vhost, client: WorkerClient, ledger: Ledger, worker_process: WorkerProcesses
) -> None:
    worker = worker_process("-c", "1")
    for number in range(3):
        client.act(f"key-{number}", ignore_result=True)
    ledger.wait_for("done", count=3)

    assert worker.stop() == 0

    client.app.close()
    assert counted(vhost.url) == {"accepted": 3, "done": 3}


def test_a_call_that_may_have_been_stored_is_counted_as_unknown(vhost: Vhost, proxy: TcpProxy) -> None:
    with App("caller", broker=proxy.url_for()) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)
        caller.send_task("one", ignore_result=True)
        proxy.half_open()
        with pytest.raises(SendUnknown):
            caller.send_task("one", ignore_result=True, timeout=1.5)
        proxy.cut()
        proxy.resume()
        caller.send_task("one", ignore_result=True)

    assert counted(vhost.url) == {"accepted": 2, "unknown": 1}


def test_the_last_word_counts_what_was_confirmed_while_the_caller_ended(
    vhost: Vhost, proxy: TcpProxy
) -> None:
    with App("caller", broker=proxy.url_for()) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)
        caller.send_task("one", ignore_result=True)
        proxy.delay(0.2)
        for _ in range(10):
            caller.send_task("one", ignore_result=True, confirm=False)

    assert counted(vhost.url) == {"accepted": 11}


def test_the_last_word_is_said_by_a_caller_whose_connection_was_closed_as_it_was_not_used(
    vhost: Vhost,
) -> None:
    with App("caller", broker=vhost.url, broker_idle_timeout=0.1) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)
        caller.send_task("one", ignore_result=True)
        transport = caller.transport
        assert isinstance(transport, RabbitTransport)
        eventually(lambda: transport._started().link.state is LinkState.IDLE)

    assert counted(vhost.url) == {"accepted": 1}


def test_a_process_that_lives_on_tells_by_and_by(vhost: Vhost) -> None:
    with App("caller", broker=vhost.url) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)
        caller.send_task("one")

        eventually(lambda: counted(vhost.url) == {"accepted": 1}, within=20)


def test_tasks_in_queues_that_only_a_task_or_a_call_names_are_not_missing(vhost: Vhost) -> None:
    with App("caller", broker=vhost.url, task_routes=lambda *_, **__: {"queue": "routed"}) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)

        @caller.task(name="mail.send", queue="mails", ignore_result=True)
        def send_mail() -> None: ...

        send_mail.map_async([()] * 3)
        send_mail.apply_async(queue="adhoc")
        caller.send_task("one", ignore_result=True)

    def is_told() -> None:
        with App("reader", broker=vhost.url) as reader:
            found = account_of(reader, management_of(vhost))
        assert (found.waiting, found.dead) == (
            {"adhoc": 1, "default": 0, "mails": 3, "routed": 1},
            {"adhoc.dead": 0, "default.dead": 0, "mails.dead": 0, "routed.dead": 0},
        )
        assert (found.total, found.difference, found.uncounted) == (5, 0, {})

    eventually(is_told, within=20)


def test_notes_of_the_index_of_delayed_tasks_are_no_tasks(vhost: Vhost) -> None:
    with App("caller", broker=vhost.url, task_delayed_index=True) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)
        for _ in range(3):
            caller.send_task("one", countdown=600, ignore_result=True)

    def is_indexed() -> None:
        assert vhost.queue(DELAYED_NAME).get("messages") == 3

    eventually(is_indexed, within=30)

    def is_told() -> None:
        with App("reader", broker=vhost.url) as reader:
            found = account_of(reader, management_of(vhost))
        assert (found.delayed, found.difference) == (3, 0)

    eventually(is_told, within=20)


def test_queues_that_hold_messages_and_cannot_be_told_for_task_queues_are_named(
    vhost: Vhost, capsys: pytest.CaptureFixture[str]
) -> None:
    with App("caller", broker=vhost.url, task_dead_letter_queues=False) as caller:
        declare_account(caller.transport, TopologyMode.DECLARE)
        caller.send_many([("one", (), {}, {"queue": "adhoc"})] * 2)

    def is_told() -> None:
        code = main(["-b", vhost.url, "account", "--management", management_of(vhost)])
        assert (code, capsys.readouterr().err) == (
            ExitCode.OK,
            "2 messages in adhoc are not counted: neither does the app name this queue, nor has it dead letters beside it\n",
        )

    eventually(is_told, within=20)
    assert main(["-b", vhost.url, "account", "--json", "--management", management_of(vhost)]) == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["uncounted"] == {"adhoc": 2}


def test_account_of_an_app_without_a_worker_or_a_stream_says_so(vhost: Vhost) -> None:
    with App("reader", broker=vhost.url) as reader:
        found = account_of(reader, None)

    assert (found.counts, found.unfinished, found.is_whole, found.difference) == (None, 0, True, None)


def test_a_delayed_task_that_is_in_the_index_counts_once(vhost: Vhost) -> None:
    with App("caller", broker=vhost.url, task_delayed_index=True) as caller:
        for task_id in ("1", "2", "3"):
            caller.send_task("one", task_id=task_id, countdown=3600)
        # A stream tells how many entries it has some seconds late.
        eventually(lambda: _messages(caller, DELAYED_NAME) > 0, within=15)

        def is_told() -> None:
            found = account_of(caller, vhost.management.url)
            assert (found.delayed, found.total) == (3, 3)

        # So does the management API of any queue.
        eventually(is_told, within=20)


def _messages(app: App, queue_name: str) -> int:
    status = app.transport.queue_status(queue_name)
    return status.messages if status is not None else 0
