"""Following the journal: what happens to the stream must not keep a node from reading on."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence

import pytest

from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.message import JOURNAL_NAME, JournalEntry
from amqp_tasks.settings import Conf, Settings
from amqp_tasks.transport import Transport, connect
from amqp_tasks.worker import _journal
from amqp_tasks.worker._journal import JournalFollower
from amqp_tasks.worker._loop import Loop
from support import TcpProxy, Vhost, eventually


def settings_for(url: str) -> Settings:
    conf = Conf()
    conf.update(broker_url=url)
    return conf.settings()


@pytest.fixture
def loop() -> Iterator[Loop]:
    made = Loop()
    thread = threading.Thread(target=made.run)
    thread.start()
    yield made
    made.stop()
    thread.join(10)
    made.close()


@pytest.fixture
def direct(vhost: Vhost) -> Iterator[Transport]:
    made = connect(settings_for(vhost.url))
    yield made
    made.close()


class Reader:
    """A follower behind the proxy, and what it read."""

    def __init__(self, url: str, loop: Loop) -> None:
        settings = settings_for(url)
        self.transport = connect(settings)
        self.read: list[str] = []
        writer = JournalWriter(self.transport, settings)
        self.follower = JournalFollower(
            self.transport, writer, on_entries=self._take, call_later=loop.call_later
        )

    def _take(self, entries: Sequence[JournalEntry]) -> None:
        self.read += [entry.kind for entry in entries]

    def close(self) -> None:
        self.follower.close()
        self.transport.close()


@pytest.fixture
def reader(proxy: TcpProxy, loop: Loop) -> Iterator[Reader]:
    made = Reader(proxy.url_for(), loop)
    yield made
    made.close()


def write(transport: Transport, vhost: Vhost, *kinds: str) -> None:
    writer = JournalWriter(transport, settings_for(vhost.url))
    writer.write([writer.entry(kind) for kind in kinds])


def test_it_is_read_to_its_end_before_anything_else_and_then_on(
    reader: Reader, direct: Transport, vhost: Vhost
) -> None:
    kinds = [f"kind-{number}" for number in range(500)]
    write(direct, vhost, *kinds)

    reader.follower.start()

    assert reader.follower.wait_until_read()
    assert reader.read == kinds
    write(direct, vhost, "later")
    eventually(lambda: reader.read[-1] == "later")


def test_a_stream_that_was_replaced_while_the_connection_was_lost_is_read_from_its_first(
    reader: Reader, direct: Transport, vhost: Vhost, proxy: TcpProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, "READ_LIMIT", 1.0)
    write(direct, vhost, "a", "b", "c", "d", "e", "f")
    reader.follower.start()
    eventually(lambda: len(reader.read) == 6)

    proxy.refuse()
    direct.delete_queue(JOURNAL_NAME)
    write(direct, vhost, "new")
    proxy.resume()

    eventually(lambda: reader.read[6:] == ["new"], within=20)
    write(direct, vhost, "newer")
    eventually(lambda: reader.read[6:] == ["new", "newer"])
