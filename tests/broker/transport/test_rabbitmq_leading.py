"""Callers who do the I/O while they wait, and what goes wrong meanwhile. See docs/explanation/connections.md, "Who runs
the loop"."""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from types import FrameType

import pytest

from amqp_tasks.errors import PublishError, SendUnknown
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import ConsumerEvent, ConsumerOptions, Delivery, Settlement
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import RawClient, TcpProxy, Vhost, eventually

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]


@pytest.fixture
def led(vhost: Vhost, make_transport: Make, raw_client: RawClient) -> RabbitTransport:
    """Open, with queue `work`, and its baton free."""
    raw_client.declare("work")
    return opened(make_transport(vhost.url))


def opened(transport: RabbitTransport) -> RabbitTransport:
    transport.open(timeout=10)
    eventually(lambda: transport.queue_status("work") is not None and leads_of(transport) > 0)
    return transport


def leads_of(transport: RabbitTransport) -> int:
    return transport._started().thread._leads


def held_gate() -> threading.Lock:
    gate = threading.Lock()
    gate.acquire()
    return gate


def release(transport: RabbitTransport, gate: threading.Lock) -> None:
    gate.release()
    transport.look_again()


def wait_led(transport: RabbitTransport, gate: threading.Lock, seconds: float) -> bool:
    """Wait as the leader, not beside the I/O thread, which may just have taken over."""
    baton = transport._started().thread._baton
    eventually(lambda: transport.queue_status("work") is not None and not baton.locked())
    return transport.wait(gate, seconds)


@pytest.fixture
def on_usr1() -> Iterator[Callable[[Callable[[], object]], None]]:
    before = signal.getsignal(signal.SIGUSR1)

    def install(react: Callable[[], object]) -> None:
        def handle(_number: int, _frame: FrameType | None) -> None:
            react()

        signal.signal(signal.SIGUSR1, handle)

    yield install
    signal.signal(signal.SIGUSR1, before)


@pytest.fixture
def raising_sigint() -> Iterator[None]:
    # A run in the background of a shell starts with SIGINT ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def interrupting(ready: Callable[[], bool], number: int) -> threading.Thread:
    def interrupt() -> None:
        eventually(ready)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=interrupt)
    thread.start()
    return thread


def test_a_lone_caller_leads_and_the_io_thread_takes_over_when_nobody_calls(
    led: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    before, confirmed = leads_of(led), threading.Event()

    for number in range(20):
        led.publish(message("work", number))
    led.publish_nowait(message("work", "last"), lambda _error: confirmed.set())

    assert leads_of(led) >= before + 15  # on a slow machine the I/O thread may have had a few
    assert confirmed.wait(10)
    assert len(raw_client.drain("work")) == 21


def test_messages_of_one_thread_keep_their_order_whoever_writes_them(
    led: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    outcomes: list[PublishError | None] = []

    for number in range(0, 300, 3):
        led.publish_nowait(message("work", number), outcomes.append)
        led.publish_nowait(message("work", number + 1), outcomes.append)
        led.publish(message("work", number + 2))

    assert [int(got.body) for got in raw_client.drain("work")] == list(range(300))
    assert outcomes == [None] * 200


def test_a_connection_that_is_cut_while_a_caller_leads_is_made_again_by_him(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    with TcpProxy(vhost.url) as proxy:
        transport = opened(make_transport(proxy.url_for(vhost.url)))
        for number in range(9):
            cut = threading.Thread(target=proxy.cut)
            cut.start()
            transport.publish(message("work", number), timeout=20)
            cut.join()
            if transport.statistics().connects > 3:
                break  # each further one waits a little longer

        assert transport.statistics().connects > 1
        assert {int(got.body) for got in raw_client.drain("work")} == set(range(number + 1))


def test_another_callers_deadline_counts_while_somebody_leads(
    vhost: Vhost, make_transport: Make, message: Message, raw_client: RawClient
) -> None:
    raw_client.declare("work")
    with TcpProxy(vhost.url) as proxy:
        transport = opened(make_transport(proxy.url_for(vhost.url)))
        gate, failures = held_gate(), list[Exception]()

        def publish() -> None:
            eventually(lambda: transport._started().thread._leader != 0)
            proxy.half_open()
            try:
                transport.publish(message("work"), timeout=0.3)
            except SendUnknown as exc:
                failures.append(exc)
            release(transport, gate)

        other = threading.Thread(target=publish)
        other.start()
        assert wait_led(transport, gate, 20)
        other.join()
        assert [str(failure) for failure in failures] != []
        assert "did not answer" not in str(failures[0])


@pytest.mark.usefixtures("raising_sigint")
def test_ctrl_c_ends_a_leaders_wait_and_costs_nothing_else(led: RabbitTransport, message: Message) -> None:
    thread = led._started().thread
    interrupter = interrupting(lambda: thread._leader != 0, signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        wait_led(led, held_gate(), 20)
    interrupter.join()
    led.publish(message("work"))

    assert led.statistics().connects == 1
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


@pytest.mark.usefixtures("raising_sigint")
def test_interruptions_in_the_middle_of_turns_leave_nothing_half_done(
    led: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    is_over, sent, outcomes = threading.Event(), list[int](), list[PublishError | None]()

    def interrupt() -> None:
        while not is_over.wait(0.0005):
            os.kill(os.getpid(), signal.SIGINT)

    core, interrupts = led._started(), 0
    interrupter = threading.Thread(target=interrupt)
    interrupter.start()
    try:
        number = 0
        while interrupts < 300:
            try:
                number += 1
                led.publish(message("work", number))
                sent.append(number)
            except KeyboardInterrupt:
                interrupts += 1
    finally:
        while interrupter.is_alive():
            try:
                is_over.set()
                interrupter.join()
            except KeyboardInterrupt:
                continue
    led.publish_nowait(message("work", 0), outcomes.append)
    eventually(lambda: outcomes == [None])

    assert led._started() is core
    assert led.statistics().connects == 1
    assert led.statistics().published == led.statistics().confirmed
    assert set(sent) <= {int(got.body) for got in raw_client.drain("work")}


def test_a_signal_handler_publishes_and_waits_while_its_thread_leads(
    led: RabbitTransport,
    message: Message,
    raw_client: RawClient,
    on_usr1: Callable[[Callable[[], object]], None],
) -> None:
    thread, gate = led._started().thread, held_gate()

    def react() -> None:
        for number in range(5):
            led.publish(message("work", number), timeout=10)
        has_reacted.set()

    def publish_beside() -> None:
        # Its message needs the poll that the handler has interrupted.
        has_reacted.wait(10)
        led.publish(message("work", 5), timeout=2)
        release(led, gate)

    has_reacted = threading.Event()
    on_usr1(react)
    others = (
        interrupting(lambda: thread._leader != 0, signal.SIGUSR1),
        threading.Thread(target=publish_beside),
    )
    others[1].start()

    assert wait_led(led, gate, 20)
    for other in others:
        other.join()
    assert len(raw_client.drain("work")) == 6
    assert led.statistics().connects == 1


def test_many_threads_at_once_all_get_their_confirms(
    led: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    failures: list[BaseException] = []

    def publish(first: int) -> None:
        try:
            for number in range(first, first + 20):
                led.publish(message("work", number), timeout=30)
        except BaseException as exc:  # reported below; a thread must not die silently
            failures.append(exc)

    threads = [threading.Thread(target=publish, args=(n * 20,)) for n in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert {int(got.body) for got in raw_client.drain("work")} == set(range(64 * 20))
    assert led.statistics().connects == 1


def forked(work: Callable[[], bool]) -> int:
    """Exit status of a child in which `work` returned True: 0."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            status = 0 if work() else 2
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.usefixtures("raising_sigint")
def test_a_fork_while_a_caller_leads_gives_the_child_a_loop_and_signals_of_its_own(
    led: RabbitTransport, message: Message, raw_client: RawClient
) -> None:
    thread, gate, statuses = led._started().thread, held_gate(), list[int]()

    def child() -> bool:
        led.publish(message("work", "child"), timeout=10)
        is_back = signal.getsignal(signal.SIGINT) is signal.default_int_handler
        led.close()
        return is_back

    def fork() -> None:
        eventually(lambda: thread._leader != 0)
        statuses.append(forked(child))
        release(led, gate)

    forker = threading.Thread(target=fork)
    forker.start()

    assert wait_led(led, gate, 30)
    forker.join()
    led.publish(message("work", "parent"))
    assert statuses == [0]
    assert sorted(got.body for got in raw_client.drain("work")) == [b"child", b"parent"]
    assert led.statistics().connects == 1


def test_a_leader_whose_handler_forks_does_not_lead_in_the_child(
    led: RabbitTransport, message: Message, on_usr1: Callable[[Callable[[], object]], None]
) -> None:
    thread, gate, statuses = led._started().thread, held_gate(), list[int]()

    def fork() -> None:
        child = os.fork()
        if child:
            statuses.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
            release(led, gate)

    on_usr1(fork)
    parent = os.getpid()
    interrupter = interrupting(lambda: thread._leader != 0, signal.SIGUSR1)
    try:
        has_come = wait_led(led, gate, 30)
    finally:
        if os.getpid() != parent:
            os._exit(0 if has_come is False else 1)

    interrupter.join()
    assert has_come
    assert statuses == [0]
    led.publish(message("work"))
    assert led.statistics().connects == 1


def test_what_breaks_a_leaders_turn_is_told_to_all_and_the_next_use_starts_another(
    led: RabbitTransport, message: Message
) -> None:
    core = led._started()

    def exit_turn(_none: object) -> None:
        raise SystemExit

    def lead_until_it_breaks() -> None:
        while not core.is_dead:  # another time, if the I/O thread has just taken over
            core.thread.call(exit_turn, None, held_gate(), 0.001)

    with pytest.raises(SystemExit):
        lead_until_it_breaks()
    eventually(lambda: core.is_dead)
    led.publish(message("work"), timeout=10)

    assert led._started() is not core


def test_a_dedicated_consumers_deliveries_stay_on_the_io_thread(
    led: RabbitTransport, message: Message
) -> None:
    names: list[str] = []
    led.publish(message("work", "first"))

    def on_deliveries(deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            names.append(threading.current_thread().name)
            consumer.settle(delivery, Settlement.ACK)

    consumer = led.consume(
        ["work"], ConsumerOptions(prefetch=10), on_deliveries=on_deliveries, on_event=_nothing
    )
    for number in range(50):
        led.publish(message("work", number))

    eventually(lambda: len(names) == 51)
    assert set(names) == {"amqp-tasks-io"}

    consumer.close(timeout=5)
    before = leads_of(led)
    for number in range(20):
        led.publish(message("work", number))
    assert leads_of(led) > before


def test_closing_ends_a_lead(led: RabbitTransport) -> None:
    thread, gate = led._started().thread, held_gate()

    def close() -> None:
        eventually(lambda: thread._leader != 0)
        led.close(timeout=5)
        gate.release()

    closer = threading.Thread(target=close)
    closer.start()

    assert wait_led(led, gate, 20)
    closer.join()
    assert not thread.is_alive


def _nothing(_event: ConsumerEvent) -> None:
    pass
