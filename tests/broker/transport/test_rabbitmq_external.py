"""Logging in by a client certificate (EXTERNAL), against a node that trusts one authority."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from amqp_routing import Queue, QueueType, Topology
from amqp_tasks.errors import BrokerAuthenticationError, BrokerUnreachable
from amqp_tasks.message import OutgoingMessage
from amqp_tasks.transport import TopologyMode
from amqp_tasks.transport.rabbitmq import RabbitTransport
from support.nodes import LocalNode, free_port

Make = Callable[..., RabbitTransport]
Message = Callable[..., OutgoingMessage]


class _Authority:
    """Signs certificates into a folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        certificate = self._builder(self._name, self._key, is_authority=True).sign(self._key, hashes.SHA256())
        self.file = self._write("ca.pem", certificate.public_bytes(serialization.Encoding.PEM))

    def issue(self, common_name: str) -> tuple[str, str]:
        """Files of a certificate and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        builder = self._builder(subject, key, is_authority=False).add_extension(address, critical=False)
        certificate = builder.sign(self._key, hashes.SHA256())
        plain = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        return (
            self._write(f"{common_name}.pem", certificate.public_bytes(serialization.Encoding.PEM)),
            self._write(f"{common_name}.key", plain),
        )

    def _builder(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, *, is_authority: bool
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )

    def _write(self, name: str, data: bytes) -> str:
        path = self._folder / name
        path.write_bytes(data)
        return str(path)


@dataclass(frozen=True, slots=True)
class TlsNode:
    """A node with a TLS listener that knows one user, `client`, by certificate."""

    url: str
    authority: _Authority

    def options(self, common_name: str) -> dict[str, str]:
        """`broker_use_ssl` of a client with that certificate."""
        certfile, keyfile = self.authority.issue(common_name)
        return {"ca_certs": self.authority.file, "certfile": certfile, "keyfile": keyfile}


@pytest.fixture(scope="module")
def tls_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TlsNode]:
    authority = _Authority(tmp_path_factory.mktemp("certificates"))
    certfile, keyfile = authority.issue("broker")
    port = free_port()
    node = LocalNode(
        {
            "listeners.ssl.1": f"127.0.0.1:{port}",
            "ssl_options.cacertfile": authority.file,
            "ssl_options.certfile": certfile,
            "ssl_options.keyfile": keyfile,
            "ssl_options.verify": "verify_peer",
            "ssl_options.fail_if_no_peer_cert": "true",
            "auth_mechanisms.1": "EXTERNAL",
            "auth_mechanisms.2": "PLAIN",
            "ssl_cert_login_from": "common_name",
        }
    )
    (node.home / "enabled_plugins").write_text("[rabbitmq_management, rabbitmq_auth_mechanism_ssl].\n")
    try:
        node.start()
        node.ctl("add_user", "client", "unused")
        node.ctl("set_permissions", "client", ".*", ".*", ".*")
        yield TlsNode(url=f"amqps://client:@127.0.0.1:{port}//", authority=authority)
    finally:
        node.remove()


@pytest.mark.timeout(120)
def test_a_client_certificate_logs_in_and_a_large_message_goes_through_tls(
    tls_node: TlsNode, make_transport: Make, message: Message
) -> None:
    transport = make_transport(tls_node.url, login_method="EXTERNAL", use_ssl=tls_node.options("client"))
    large = Topology(queues=(Queue("large", type=QueueType.CLASSIC),))
    transport.ensure_topology(large, mode=TopologyMode.DECLARE, timeout=20)

    # Larger than what the socket and one TLS record take at once.
    outcomes = transport.publish_many(message("large", number, body=bytes(4_000_000)) for number in range(4))

    assert outcomes == [None] * 4


@pytest.mark.timeout(120)
def test_a_certificate_of_somebody_unknown_is_an_authentication_error(
    tls_node: TlsNode, make_transport: Make
) -> None:
    transport = make_transport(tls_node.url, login_method="EXTERNAL", use_ssl=tls_node.options("stranger"))

    with pytest.raises(BrokerAuthenticationError):
        transport.open(timeout=20)


@pytest.mark.timeout(120)
def test_no_client_certificate_where_one_is_wanted_is_unreachable(
    tls_node: TlsNode, make_transport: Make
) -> None:
    options = {"ca_certs": tls_node.authority.file}
    transport = make_transport(tls_node.url, use_ssl=options, connection_retry=False)

    with pytest.raises(BrokerUnreachable, match="certificate"):
        transport.open(timeout=20)
