"""Addresses: every form is understood, and no form shows its password."""

from __future__ import annotations

import copy
import pickle
import traceback

import pytest

from amqp_tasks.errors import ConfigurationError, UnsupportedTransport
from amqp_tasks.settings import BrokerUrl, ResultUrl

CANARY = "s3cr3t-canary"


def _facts(url: BrokerUrl) -> tuple[str, str, int, str, str, str]:
    return url.scheme, url.host, url.port, url.user, url.password.get_secret_value(), url.vhost


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("pyamqp://guest@localhost//", ("amqp", "localhost", 5672, "guest", "guest", "/")),
        ("amqp://", ("amqp", "localhost", 5672, "guest", "guest", "/")),
        ("pyamqp://", ("amqp", "localhost", 5672, "guest", "guest", "/")),
        ("amqps://", ("amqps", "localhost", 5671, "guest", "guest", "/")),
        ("AMQP://mq", ("amqp", "mq", 5672, "guest", "guest", "/")),
        ("amqp://mq/", ("amqp", "mq", 5672, "guest", "guest", "/")),
        ("amqp://mq//", ("amqp", "mq", 5672, "guest", "guest", "/")),
        ("amqp://mq/%2F", ("amqp", "mq", 5672, "guest", "guest", "/")),
        ("amqp://mq/%2f", ("amqp", "mq", 5672, "guest", "guest", "/")),
        ("amqp://mq/sales", ("amqp", "mq", 5672, "guest", "guest", "sales")),
        ("amqp://mq//sales", ("amqp", "mq", 5672, "guest", "guest", "/sales")),
        ("amqp://me:pw@mq:99/v", ("amqp", "mq", 99, "me", "pw", "v")),
        ("amqp://me@mq", ("amqp", "mq", 5672, "me", "", "/")),
        ("amqp://me:@mq", ("amqp", "mq", 5672, "me", "", "/")),
        ("amqp://:pw@mq", ("amqp", "mq", 5672, "guest", "pw", "/")),
        ("amqp://a%40b:p%2F%40%3A@mq/%20", ("amqp", "mq", 5672, "a@b", "p/@:", " ")),
        ("amqp://me:p@w@mq", ("amqp", "mq", 5672, "me", "p@w", "/")),
        ("amqp://[::1]", ("amqp", "::1", 5672, "guest", "guest", "/")),
        ("amqp://me:pw@[fe80::1]:99/v", ("amqp", "fe80::1", 99, "me", "pw", "v")),
        ("memory://", ("memory", "", 0, "", "", "/")),
        ("memory:///tests", ("memory", "", 0, "", "", "tests")),
    ],
)
def test_broker_url_is_taken_apart(text: str, facts: tuple[str, str, int, str, str, str]) -> None:
    assert _facts(BrokerUrl.parse(text)) == facts


@pytest.mark.parametrize(
    "text",
    [
        "amqp://me:pw@mq:99/v",
        "amqps://a%40b:p%2F@[::1]:1/%2Fv?heartbeat=3",
        "memory://",
        "memory:///x",
        "amqp://",
    ],
)
def test_revealed_url_parses_to_the_same_address(text: str) -> None:
    url = BrokerUrl.parse(text)

    assert BrokerUrl.parse(url.reveal()) == url
    assert hash(BrokerUrl.parse(url.reveal())) == hash(url)


def test_masked_url_is_complete_but_for_the_password() -> None:
    assert BrokerUrl.parse(f"amqp://me:{CANARY}@mq//").masked == "amqp://me:**@mq:5672//"
    assert BrokerUrl.parse("amqp://me@mq/v").masked == "amqp://me@mq:5672/v"
    assert BrokerUrl.parse("memory://").masked == "memory://"


def test_options_are_typed() -> None:
    url = BrokerUrl.parse("amqp://mq?heartbeat=7&connection_timeout=1.5")

    assert (url.heartbeat, url.connection_timeout) == (7, 1.5)
    assert (BrokerUrl().heartbeat, BrokerUrl().connection_timeout) == (None, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("localhost", "expected scheme://user:password@host:port/vhost"),
        ("amqp://mq:0", "port from 1 to 65535"),
        ("amqp://mq:many", "port from 1 to 65535"),
        ("amqp://mq:70000", "port from 1 to 65535"),
        ("amqp://[::1", "IPv6 address in [ ]"),
        ("amqp://mq /x", "without blanks"),
        ("amqp://mq/x#y", "percent-encode it as %23"),
        ("amqp://me:a/b@mq", "percent-encode '@' as %40"),
        ("amqp://me:a#b@mq", "percent-encode '@' as %40"),
        ("amqp://mq?heartbeats=3", "unknown option 'heartbeats' (known: heartbeat, connection_timeout)"),
        ("amqp://mq?heartbeat=soon", "expected heartbeat to be a positive number of seconds, got 'soon'"),
        ("amqp://mq?connection_timeout=inf", "positive number of seconds"),
        ("amqp://mq?connection_timeout=0", "positive number of seconds"),
        ("amqp://mq?heartbeat=65536", "expected heartbeat to be at most 65535 seconds, got 65536"),
        ("memory://?heartbeat=3", "memory:// has no options"),
    ],
)
def test_wrong_broker_url_says_what_to_change(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BrokerUrl.parse(text)

    assert message in str(caught.value)


def test_unknown_scheme_lists_the_supported_ones() -> None:
    with pytest.raises(UnsupportedTransport) as caught:
        BrokerUrl.parse(f"redis://:{CANARY}@mq")

    assert str(caught.value) == (
        "no transport for broker URLs of scheme 'redis' (supported: amqp://, amqps://, pyamqp://, memory://)"
    )


def test_misspelt_scheme_gets_a_hint() -> None:
    with pytest.raises(UnsupportedTransport, match="did you mean amqp://"):
        BrokerUrl.parse("ampq://mq")


def test_password_is_in_no_text_of_a_url() -> None:
    url = BrokerUrl.parse(f"amqp://me:{CANARY}@mq/v")

    texts = [str(url), repr(url), f"{url}", f"{url!r:>80}", str([url]), str(url.password), repr(url.password)]

    assert not [text for text in texts if CANARY in text]


def test_pickle_does_not_carry_the_password_and_says_so() -> None:
    url = BrokerUrl.parse(f"amqp://me:{CANARY}@mq/v?heartbeat=3")

    pickled = pickle.dumps(url)
    again = pickle.loads(pickled)

    assert CANARY.encode() not in pickled
    assert (again.host, again.vhost, dict(again.query)) == ("mq", "v", {"heartbeat": "3"})
    with pytest.raises(ConfigurationError, match="does not travel through pickle"):
        again.reveal()


def test_copies_keep_the_password() -> None:
    url = BrokerUrl.parse(f"amqp://me:{CANARY}@mq/v")

    assert copy.deepcopy(url) == url == copy.copy(url)


@pytest.mark.parametrize(
    "text",
    [
        f"amqp://me:{CANARY}@mq:x/",
        f"amqp://me:{CANARY}@[mq",
        f"amqp://me:{CANARY}/x@mq/",
        f"amqp://me:{CANARY}@mq/a b",
        f"amqp://me:{CANARY}@mq/#a",
        f"amqp://me:{CANARY}@mq?x=1",
        f"sqs://me:{CANARY}@mq",
        f"amqp:/me:{CANARY}@mq",
    ],
)
def test_traceback_with_locals_of_a_wrong_url_shows_no_password(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        BrokerUrl.parse(text)

    # Without the first frame, which is this test's own and holds the text by design.
    told = traceback.TracebackException(caught.type, caught.value, caught.tb.tb_next, capture_locals=True)
    shown = "".join(told.format())

    assert "parse" in shown
    assert CANARY not in shown


@pytest.mark.parametrize(
    ("text", "facts"),
    [
        ("redis://:pw@cache:6380/2", ("redis", "cache", 6380, None, "pw", "2")),
        ("redis://", ("redis", "localhost", 6379, None, "", "0")),
        ("rediss://me:p%40w@cache", ("rediss", "cache", 6379, "me", "p@w", "0")),
        ("rpc://", ("rpc", None, None, None, "", "")),
        ("rpc", ("rpc", None, None, None, "", "")),
    ],
)
def test_result_url_is_taken_apart(text: str, facts: tuple[object, ...]) -> None:
    url = ResultUrl.parse(text)

    assert (
        url.scheme,
        url.host,
        url.port,
        url.user,
        url.password.get_secret_value(),
        url.database,
    ) == facts


@pytest.mark.parametrize(
    "text",
    [
        f"redis:/:{CANARY}@cache/0",
        f"redis:{CANARY}@cache",
        f":{CANARY}@cache",
        f"redis//:{CANARY}@cache",
        f"redis://:{CANARY}/x@cache",
        f"redis://:{CANARY}@cache:many",
    ],
)
def test_traceback_with_locals_of_a_wrong_result_url_shows_no_password(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ResultUrl.parse(text)

    # Without the first frame, which is this test's own and holds the text by design.
    told = traceback.TracebackException(caught.type, caught.value, caught.tb.tb_next, capture_locals=True)
    assert CANARY not in "".join(told.format())


@pytest.mark.parametrize(
    "text",
    [
        "rpc://",
        "redis://",
        "redis://:p%40w%2F@cache:6380/2",
        "rediss://me%3A:pw@[::1]:1/a%2Fb",
        "mongodb://cache/x",
        "rediss://cache/0?ssl_ca_certs=/etc/a%20b.pem&ssl_certfile=c%26d",
    ],
)
def test_revealed_result_url_parses_to_the_same_address(text: str) -> None:
    url = ResultUrl.parse(text)

    assert ResultUrl.parse(url.reveal()) == url


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("redis://cache?db=3", "unknown option 'db' of redis:// (known: ssl_ca_certs"),
        ("redis://cache/1?ssl_ca_certs=/x", "of rediss:// only"),
        ("rediss://cache/1?ssl_cert_reqs=none", "certificates are always verified"),
        ("rediss://cache/1?ssl_ca_certs=", "expected ssl_ca_certs to name a file, got nothing"),
        ("rpc://?expires=3", "unknown option 'expires' of rpc://"),
    ],
)
def test_an_option_of_a_store_that_would_not_be_heeded_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        ResultUrl.parse(text)

    assert message in str(caught.value)


def test_password_is_in_no_text_of_a_result_url() -> None:
    url = ResultUrl.parse(f"redis://:{CANARY}@cache:6379/1")

    assert str(url) == "redis://:**@cache:6379/1"
    assert CANARY not in repr(url) + f"{url}" + str(pickle.dumps(url))
