"""The transport's pure decisions: backoff, suspects, errors, differences."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from pika import exceptions as pika_errors
from pika import spec

from amqp_routing import Binding, Exchange, ExchangeType, Queue, Topology
from amqp_tasks.errors import (
    BrokerAccessError,
    BrokerAuthenticationError,
    BrokerOperationError,
    BrokerUnreachable,
    EncodeError,
    MessageTooLarge,
    NotSent,
    PublishError,
    PublishNacked,
    PublishRefused,
    SendUnknown,
    UnroutableError,
    UserIdRefused,
)
from amqp_tasks.message import OutgoingMessage, Properties
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport.rabbitmq import Address, TransportOptions, _topology
from amqp_tasks.transport.rabbitmq._codec import encode_properties
from amqp_tasks.transport.rabbitmq._connection import Backoff
from amqp_tasks.transport.rabbitmq._errors import connection_error
from amqp_tasks.transport.rabbitmq._fastwire import Returned, encode_head
from amqp_tasks.transport.rabbitmq._pending import Pending
from amqp_tasks.transport.rabbitmq._remembered import Remembered
from amqp_tasks.transport.rabbitmq._suspects import culprit_error, find_suspects, is_certain
from amqp_tasks.transport.rabbitmq._topology import (
    _read_difference,
    ensure_script,
    presence_script,
    status_script,
)
from amqp_tasks.transport.rabbitmq._verdicts import find_returned, nacked, unroutable
from amqp_tasks.transport.rabbitmq._window import SendWindow
from support.fake_deliveries import FakeClock


class _Nowhere:
    def done(self, index: int, error: PublishError | None) -> None:
        """Nobody waits."""


def pending(*, exchange: str = "", key: str = "work", size: int = 1, user_id: str | None = None) -> Pending:
    message = OutgoingMessage(
        exchange=exchange, routing_key=key, body=bytes(size), properties=Properties(user_id=user_id)
    )
    return Pending(message, b"", 0.0, _Nowhere())


def test_the_first_retry_is_at_once_and_later_ones_are_bounded() -> None:
    backoff = Backoff(rng=random.Random(1))

    waits = [backoff.next() for _ in range(50)]

    assert waits[0] == 0
    assert 0.05 <= waits[1] <= 0.1
    assert all(1.0 <= wait <= 2.0 for wait in waits[8:])
    backoff.reset()
    assert backoff.next() == 0


@pytest.mark.parametrize(
    ("text", "matching"),
    [
        ("NOT_FOUND - no exchange 'x' in vhost '/'", [1]),
        ("ACCESS_REFUSED - write access to exchange 'x' in vhost 'v' refused for user 'u'", [1]),
        ("ACCESS_REFUSED - access to exchange 'amq.default' in vhost '/' refused for user 'u'", [0, 2, 3]),
        ("ACCESS_REFUSED - write access to topic 'k' in exchange 'x' in vhost 'v' refused for user 'u'", [1]),
        ("PRECONDITION_FAILED - message size 9 is larger than configured max size 5", [2]),
        ("PRECONDITION_FAILED - message size 9 larger than max size 5", [2]),
        ("PRECONDITION_FAILED - user_id property set to 'joe' but authenticated user was 'guest'", [3]),
        ("PRECONDITION_FAILED - something new", [0, 1, 2, 3]),
    ],
)
def test_suspects_are_those_that_the_brokers_text_fits(text: str, matching: list[int]) -> None:
    unconfirmed = [pending(), pending(exchange="x", key="k"), pending(size=9), pending(user_id="joe")]

    assert find_suspects(text, unconfirmed) == [unconfirmed[number] for number in matching]


def test_a_user_id_with_a_quote_is_found_and_one_that_was_cut_leaves_a_doubt() -> None:
    quoted = pending(user_id="d'or")
    text = "PRECONDITION_FAILED - user_id property set to 'd'or' but authenticated user was 'guest'"
    cut = "PRECONDITION_FAILED - user_id property set to 'd'o..."

    assert find_suspects(text, [pending(user_id="d"), quoted]) == [quoted]
    assert is_certain(text, known_exchanges=())
    assert not is_certain(cut, known_exchanges=())


def test_what_was_written_before_a_loss_is_never_told_as_certainly_not_stored() -> None:
    message = pending(exchange="x")
    message.returned = "312 NO_ROUTE"

    assert type(unroutable(message)) is UnroutableError
    assert type(nacked(message)) is PublishNacked
    message.maybe_stored = True

    assert type(unroutable(message)) is SendUnknown
    assert type(nacked(message)) is SendUnknown


def test_a_return_finds_its_message_even_if_its_properties_came_back_otherwise() -> None:
    other, own = pending(exchange="y"), pending(exchange="x")
    returned = Returned(312, "NO_ROUTE", "x", own.message.routing_key, b"\xff\xff", own.message.body)

    assert find_returned(returned, [other, own]) is own
    own.returned = "312 NO_ROUTE"
    assert find_returned(returned, [other, own]) is None


def test_of_two_messages_to_one_address_the_equal_one_was_returned() -> None:
    first, second = pending(exchange="x", size=1), pending(exchange="x", size=2)
    header = encode_properties(second.message.properties)
    returned = Returned(312, "NO_ROUTE", "x", second.message.routing_key, header, second.message.body)

    assert find_returned(returned, [first, second]) is second


def test_after_a_loss_the_window_starts_small_and_doubles() -> None:
    window = SendWindow(1000)
    assert window.has_room(999)
    assert not window.has_room(1000)

    window.lost()
    rounds = 0
    while not window.has_room(999):
        for _ in range(window.size):
            window.confirmed()
        rounds += 1

    assert rounds == 6  # 16 · 2⁶ > 1000


def test_messages_past_their_deadline_take_up_no_room() -> None:
    window = SendWindow(4)
    for _ in range(4):
        window.became_overdue()

    assert window.has_room(4)
    window.overdue_confirmed()
    assert not window.has_room(7)
    window.channel_gone()
    assert not window.has_room(4)


def test_an_exchange_that_worked_before_leaves_a_doubt() -> None:
    text = "NOT_FOUND - no exchange 'x' in vhost '/'"

    assert is_certain(text, known_exchanges={"y"})
    assert not is_certain(text, known_exchanges={"x"})


@pytest.mark.parametrize(
    ("code", "text", "maybe_stored", "kind"),
    [
        (404, "NOT_FOUND - no exchange 'x' in vhost '/'", False, UnroutableError),
        (404, "NOT_FOUND - no exchange 'x' in vhost '/'", True, SendUnknown),
        (403, "ACCESS_REFUSED - …", False, PublishRefused),
        (541, "INTERNAL_ERROR", False, NotSent),
        (
            406,
            "PRECONDITION_FAILED - message size 9 is larger than configured max size 5",
            True,
            MessageTooLarge,
        ),
        (406, "PRECONDITION_FAILED - invalid expiration 'x'", True, PublishRefused),
        (406, "PRECONDITION_FAILED - user_id property set to 'a' but authenticated …", True, UserIdRefused),
        (406, "PRECONDITION_FAILED - user_id property set to 'aaaaaaaaaaaa...", False, UserIdRefused),
    ],
)
def test_the_culprits_error_says_whether_it_may_be_stored(
    code: int, text: str, maybe_stored: bool, kind: type[PublishError]
) -> None:
    culprit = pending(exchange="x")
    culprit.maybe_stored = maybe_stored

    error = culprit_error(culprit, code, text)

    assert type(error) is kind
    assert isinstance(error.__cause__, BrokerOperationError)
    assert error.__cause__.reply_code == code


_closed = pika_errors.ConnectionClosedByBroker


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (
            pika_errors.ProbableAuthenticationError(repr(_closed(403, "ACCESS_REFUSED - Login was refused"))),
            BrokerAuthenticationError,
        ),
        (
            pika_errors.ProbableAuthenticationError(repr(pika_errors.StreamLostError("reset"))),
            BrokerUnreachable,
        ),
        (
            pika_errors.ProbableAccessDeniedError(repr(_closed(530, "NOT_ALLOWED - vhost v not found"))),
            BrokerAccessError,
        ),
        (
            pika_errors.ProbableAccessDeniedError(
                repr(_closed(530, "NOT_ALLOWED - access refused: connection limit (2) is reached"))
            ),
            BrokerUnreachable,
        ),
        (
            pika_errors.ProbableAccessDeniedError(repr(_closed(541, "INTERNAL_ERROR - vhost 'v' is down"))),
            BrokerUnreachable,
        ),
        (OSError(111, "Connection refused"), BrokerUnreachable),
    ],
)
def test_only_a_close_with_a_code_is_final(reason: Exception, kind: type[Exception]) -> None:
    error = connection_error(reason, url="amqp://u:**@h:1//", user="u", vhost="v")

    assert type(error) is kind


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "inequivalent arg 'x-max-length' for queue 'q' in vhost '/': received '2' but current is '1'",
            ("x-max-length", "2", "1"),
        ),
        (
            (
                "inequivalent arg 'x-max-priority' for queue 'q' in vhost '/': received none but current is the value"
                " '3' of type 'signedint'"
            ),
            ("x-max-priority", None, 3),
        ),
        (
            (
                "inequivalent arg 'x-single-active-consumer' for queue 'it's' in vhost 'v': received the value 'true' of"
                " type 'bool' but current is none"
            ),
            ("x-single-active-consumer", True, None),
        ),
        ("something else", None),
    ],
)
def test_differences_are_read_from_the_brokers_text(text: str, expected: tuple[Any, ...] | None) -> None:
    assert _read_difference(f"PRECONDITION_FAILED - {text}") == expected


def test_what_a_message_needs_is_found_in_what_was_declared() -> None:
    declared = Remembered()
    declared.add(
        Topology(
            exchanges=(Exchange("jobs", ExchangeType.TOPIC), Exchange("alone", ExchangeType.FANOUT)),
            queues=(Queue("mail"), Queue("other")),
            bindings=(Binding(source="jobs", destination="mail", routing_key="mail.#"),),
        )
    )

    behind = declared.related("jobs", "mail.x")
    direct = declared.related("", "other")

    assert behind is not None
    assert behind.queue_names == ("mail",)
    assert direct is not None
    assert direct.queue_names == ("other",)
    assert declared.related("", "missing") is None
    assert declared.related("missing", "mail.x") is None


def test_of_what_was_declared_twice_the_newer_one_counts_and_nothing_else_is_forgotten() -> None:
    declared = Remembered()
    declared.add(Topology(queues=(Queue("mail"), Queue("other"))))

    declared.add(Topology(queues=(Queue("mail", max_length=5),)))

    assert declared.related("", "mail") == Topology(queues=(Queue("mail", max_length=5),))
    assert declared.related("", "other") == Topology(queues=(Queue("other"),))


@pytest.mark.parametrize(
    "change",
    [
        lambda message: setattr(message, "routing_key", "k" * 256),
        lambda message: setattr(message.properties, "priority", 256),
        lambda message: setattr(message.properties, "correlation_id", "\udc80"),
        lambda message: setattr(message.properties, "timestamp", -1),
    ],
    ids=["long routing key", "priority", "lone surrogate", "negative time"],
)
def test_what_does_not_fit_into_a_frame_is_an_encode_error(change: Callable[[OutgoingMessage], None]) -> None:
    message = OutgoingMessage(exchange="", routing_key="k", body=b"", properties=Properties())
    change(message)

    with pytest.raises(EncodeError):
        encode_head(1, message)


def test_no_password_in_the_options_repr() -> None:
    address = Address(host="h", port=1, user="u", password="s3cr3t", vhost="/")
    options = TransportOptions(addresses=(address,), use_ssl={"keyfile_password": "s3cr3t"})

    assert "s3cr3t" not in repr(options)
    assert address.masked == "amqp://u:**@h:1//"


def test_queues_that_are_new_are_declared_without_a_look() -> None:
    topology = Topology(queues=(Queue("a"), Queue("b")))

    asked = list(ensure_script(topology, TopologyMode.DECLARE, is_new=True))

    assert [ask.arguments["queue"] for ask in asked] == ["a", "b"]
    assert not any(ask.arguments.get("passive") for ask in asked)


def test_a_queue_that_does_not_run_is_absent_for_now_and_the_next_one_is_looked_for() -> None:
    present, absent = list[str](), list[str]()
    script = presence_script(("down", "up"), None, present, absent)
    next(script)

    script.throw(
        BrokerOperationError("no", reply_code=404, reply_text="queue 'down' is down or inaccessible")
    )
    with pytest.raises(StopIteration):
        script.send(spec.Queue.DeclareOk("up", message_count=0, consumer_count=1))

    assert (present, absent) == (["up"], ["down"])


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(0.0, 0)], 0),
        ([(0.3, 5)], 5),
        ([(0.3, 0), (0.3, 0), (0.0, 5)], 5),
        ([(0.3, 0)] * 4, 0),
    ],
    ids=["quick", "slow and some", "slow", "always slow"],
)
def test_a_slow_answer_that_a_queue_is_empty_is_not_believed_at_once(
    monkeypatch: pytest.MonkeyPatch, answers: list[tuple[float, int]], expected: int
) -> None:
    clock = FakeClock()
    monkeypatch.setattr(_topology, "SYSTEM_CLOCK", clock)
    script = status_script("work")
    next(script)
    *not_believed, (seconds, count) = answers
    for slowly, nothing in not_believed:
        clock.seconds += slowly
        script.send(spec.Queue.DeclareOk("work", message_count=nothing, consumer_count=0))
    clock.seconds += seconds

    with pytest.raises(StopIteration) as stop:
        script.send(spec.Queue.DeclareOk("work", message_count=count, consumer_count=0))

    assert stop.value.value.messages == expected
