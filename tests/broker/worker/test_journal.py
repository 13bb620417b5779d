"""Following the journal: what happens to the stream must not keep a node from reading on."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pytest

from amqp_tasks.app._journal import JournalWriter
from amqp_tasks.errors import NotSent, PublishError
from amqp_tasks.message import JOURNAL_NAME, JournalEntry
from amqp_tasks.settings import Conf, Settings
from amqp_tasks.transport import Transport, connect
from amqp_tasks.transport.rabbitmq import RabbitTransport
from amqp_tasks.worker import _journal
from amqp_tasks.worker._commands import Commands
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
        self.pieces: list[int] = []
        writer = JournalWriter(self.transport, settings)
        self.follower = JournalFollower(
            self.transport,
            writer,
            on_entries=self._take,
            call_later=loop.call_later,
            commands=Commands(("pause",)),
        )

    def _take(self, entries: Sequence[JournalEntry]) -> None:
        self.read += [entry.kind for entry in entries]
        self.pieces.append(len(entries))

    def close(self) -> None:
        self.follower.close()
        self.transport.close()


@pytest.fixture
def reader(proxy: TcpProxy, loop: Loop) -> Iterator[Reader]:
    made = Reader(proxy.url_for(), loop)
    yield made
    made.close()


def _assert(condition: object) -> None:
    assert condition


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


def test_a_reader_whose_io_thread_died_reads_on_after_what_it_knows(
    reader: Reader, direct: Transport, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, "READ_AGAIN_AFTER", 0.1)
    write(direct, vhost, "a", "b")
    reader.follower.start()
    assert reader.follower.wait_until_read()

    end_io_thread(reader.transport)

    write(direct, vhost, "later")
    eventually(lambda: _assert(reader.read == ["a", "b", "later"]), within=10)


def test_another_stream_is_read_in_one_piece(
    reader: Reader, direct: Transport, vhost: Vhost, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(direct, vhost, "a")
    reader.follower.start()
    assert reader.follower.wait_until_read()
    kinds = [f"kind-{number}" for number in range(500)]

    # It reads again when all is there: what is written while it reads comes by and by.
    later: SimpleQueue[Callable[[], None]] = SimpleQueue()
    with monkeypatch.context() as held:
        held.setattr(reader.follower, "_call_later", lambda _, read_again: later.put(read_again))
        end_io_thread(reader.transport)
        read_again = later.get(timeout=15)
    direct.delete_queue(JOURNAL_NAME)
    write(direct, vhost, *kinds)
    loop.call_later(0, read_again)

    eventually(lambda: _assert(reader.read[1:] == kinds), within=10)
    assert reader.pieces == [1, 500]


def test_a_stream_that_may_be_read_later_is_read_then(
    direct: Transport, vhost: Vhost, loop: Loop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, "READ_AGAIN_AFTER", 0.1)
    write(direct, vhost, "before")
    url = vhost.limited_url(configure=".*", write=".*", read="^$")
    reader = Reader(url, loop)
    try:
        reader.follower.start()
        assert not reader.follower.wait_until_read()

        vhost.permit(url, configure=".*", write=".*", read=".*")

        eventually(lambda: reader.read == ["before"], within=10)
    finally:
        reader.close()


def test_a_mark_that_was_refused_is_written_again(
    reader: Reader, direct: Transport, vhost: Vhost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_journal, "READ_AGAIN_AFTER", 0.1)
    written, write_nowait = list[JournalEntry](), JournalWriter.write_nowait

    def refuse_first(
        writer: JournalWriter, entry: JournalEntry, on_outcome: Callable[[PublishError | None], None]
    ) -> None:
        written.append(entry)
        if len(written) == 1:
            on_outcome(NotSent("refused by the test"))
        else:
            write_nowait(writer, entry, on_outcome)

    monkeypatch.setattr(JournalWriter, "write_nowait", refuse_first)

    reader.follower.start()

    eventually(lambda: reader.follower._is_read)
    assert [entry.kind for entry in written] == ["mark", "mark"]


def end_io_thread(transport: Transport) -> None:
    """Let it die by an error, as a fault of ours would."""
    assert isinstance(transport, RabbitTransport)
    core = transport._started()

    def fail() -> None:
        raise RuntimeError("the test ends this thread")

    core.loop.put(lambda _none: core.loop.call_later(0, fail))
    eventually(lambda: core.is_dead)
