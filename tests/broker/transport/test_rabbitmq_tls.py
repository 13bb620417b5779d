"""TLS: verified by default, loud when it is not."""

from __future__ import annotations

import ipaddress
import logging
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from amqp_tasks.errors import BrokerUnreachable
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support import Vhost

Make = Callable[..., RabbitTransport]


@dataclass(frozen=True, slots=True)
class Terminator:
    """A TLS listener in front of the broker, with a certificate that only it vouches for."""

    url: str
    certificate: str


def _write_certificate(folder: Path, *, password: bytes | None = None) -> tuple[str, str]:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test broker")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    plain = (
        serialization.BestAvailableEncryption(password)
        if password is not None
        else serialization.NoEncryption()
    )
    pkcs8 = serialization.PrivateFormat.PKCS8
    (folder / "key.pem").write_bytes(key.private_bytes(serialization.Encoding.PEM, pkcs8, plain))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    return str(folder / "cert.pem"), str(folder / "key.pem")


def _copy(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
    except OSError:
        pass
    finally:
        for each in (source, target):
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue


def _serve(listener: socket.socket, context: ssl.SSLContext, target: tuple[str, int]) -> None:
    while True:
        try:
            raw, _peer = listener.accept()
        except OSError:
            return
        try:
            client = context.wrap_socket(raw, server_side=True)
        except OSError:
            raw.close()
            continue
        with client, socket.create_connection(target) as broker:
            threads = [
                threading.Thread(target=_copy, args=pair) for pair in ((client, broker), (broker, client))
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()


@pytest.fixture
def terminator(vhost: Vhost, tmp_path: Path) -> Iterator[Terminator]:
    """One TLS connection at a time is enough for these tests."""
    certificate, key = _write_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    parts = urlsplit(vhost.url)
    assert parts.hostname
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=_serve, args=(listener, context, (parts.hostname, parts.port or 5672)))
    thread.start()
    yield Terminator(url=vhost.url_at("127.0.0.1", port).replace("amqp:", "amqps:"), certificate=certificate)
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()
    thread.join(10)


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
    files = _write_certificate(tmp_path, password=b"s3cr3t-canary")

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
