"""TLS: verified by default, loud when it is not."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from amqp_tasks.errors import BrokerUnreachable
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import Vhost
from support.tls import tls_in_front, write_certificate

Make = Callable[..., RabbitTransport]


@dataclass(frozen=True, slots=True)
class Terminator:
    """A TLS listener in front of the broker, with a certificate that only it vouches for."""

    url: str
    certificate: str


@pytest.fixture
def terminator(vhost: Vhost, tmp_path: Path) -> Iterator[Terminator]:
    """One TLS connection at a time is enough for these tests."""
    certificate, key = write_certificate(tmp_path)
    parts = urlsplit(vhost.url)
    assert parts.hostname
    with tls_in_front((parts.hostname, parts.port or 5672), certificate, key) as port:
        url = vhost.url_at("127.0.0.1", port).replace("amqp:", "amqps:")
        yield Terminator(url=url, certificate=certificate)


def test_a_self_signed_certificate_is_refused_with_the_reason_and_the_remedy(
    terminator: Terminator, make_transport: Make
) -> None:
    transport = make_transport(terminator.url, connection_retry=False)

    with pytest.raises(BrokerUnreachable, match=r"self.signed") as caught:
        transport.open(timeout=10)

    assert "ca_certs" in str(caught.value)


def test_a_certificate_of_a_trusted_authority_is_accepted(
    terminator: Terminator, make_transport: Make
) -> None:
    transport = make_transport(terminator.url, use_ssl={"ca_certs": terminator.certificate})

    transport.open(timeout=10)

    assert transport.queue_status("none") is None
    transport.close()


def test_another_host_name_than_the_certificates_is_refused(
    terminator: Terminator, make_transport: Make
) -> None:
    options = {"ca_certs": terminator.certificate, "server_hostname": "other.example"}
    transport = make_transport(terminator.url, use_ssl=options, connection_retry=False)

    with pytest.raises(BrokerUnreachable, match=r"[Hh]ostname"):
        transport.open(timeout=10)


def test_verification_can_be_switched_off_with_a_loud_warning(
    terminator: Terminator, make_transport: Make, caplog: pytest.LogCaptureFixture
) -> None:
    transport = make_transport(terminator.url, tls_verify=False)

    transport.open(timeout=10)
    transport.close()

    warnings = [record for record in caplog.records if getattr(record, "action", "") == "tls_unverified"]
    assert [record.levelno for record in warnings] == [logging.WARNING]


def test_certificates_that_cannot_be_loaded_are_named(terminator: Terminator, make_transport: Make) -> None:
    transport = make_transport(terminator.url, use_ssl={"ca_certs": "/no/such/file"})

    with pytest.raises(BrokerUnreachable, match="broker_use_ssl"):
        transport.open(timeout=10)


LOAD = """
import sys
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.transport.rabbitmq import Address, TransportOptions
from amqp_tasks.transport.rabbitmq._options import connection_parameters

address = Address(host="127.0.0.1", port=1, user="u", password="p", vhost="/", tls=True)
options = TransportOptions(addresses=(address,), use_ssl={"certfile": sys.argv[1], "keyfile": sys.argv[2]})
try:
    connection_parameters(address, options, name="test")
except ConfigurationError as exc:
    sys.exit(str(exc))
"""


def test_a_key_with_a_password_that_was_not_given_is_an_error_and_no_question_on_the_terminal(
    tmp_path: Path,
) -> None:
    files = write_certificate(tmp_path, password=b"s3cr3t-canary")

    # Without a terminal OpenSSL would ask on the standard input, and take this for the answer.
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *files],
        input="s3cr3t-canary\n",
        capture_output=True,
        text=True,
        timeout=20,
        start_new_session=True,
        check=False,
    )

    assert "broker_use_ssl" in done.stderr
    assert "pass phrase" not in done.stderr
