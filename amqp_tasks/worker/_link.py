"""Messages between supervisor, template and worker processes: small JSON objects over a socket pair.

Private to one node of one version, so there is no versioning. A descriptor may travel along with a message.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from amqp_tasks.message import JournalEntry

__all__ = ("Link", "LinkClosed", "Message", "journal_news")

Message = dict[str, Any]

_LENGTH = struct.Struct("!I")
_CHUNK = 64 * 1024
_SEND_TIMEOUT = 5.0
"""A peer that does not read for so long is hung; it must not hang us."""


_RECEIVE_FLAGS = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
"""A received descriptor is inheritable otherwise, and programs that tasks start would hold the link open."""


def journal_news(entries: Iterable[JournalEntry]) -> Message:
    """The message that tells a worker process of entries of the journal."""
    return {"kind": "journal", "entries": [entry.as_data() for entry in entries]}


class LinkClosed(ConnectionError):
    """The other side is gone, or does not read."""


class Link:
    """One end. Thread safety: `send` from any thread; `receive` by one owner."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        end.settimeout(_SEND_TIMEOUT)
        self._sending = threading.Lock()
        self._buffer = bytearray()
        self._fds: deque[int] = deque()
        self._is_broken = False

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Two connected ends."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)

    def send(self, message: Message, *, fd: int | None = None) -> None:
        """Write one message.

        Raises:
            LinkClosed: the other side is gone or does not read.
        """
        body = json.dumps(message).encode()
        frame = _LENGTH.pack(len(body)) + body
        with self._sending:
            if self._is_broken:
                raise LinkClosed("a message before was not taken whole")
            try:
                if fd is not None:
                    sent = socket.send_fds(self.socket, [frame], [fd])
                    frame = frame[sent:]
                self.socket.sendall(frame)
            except OSError as exc:
                # Part of it may be written: what came after would be read as its rest.
                self._is_broken = True
                raise LinkClosed(str(exc)) from exc

    def receive(self) -> Sequence[Message]:
        """The messages that are there, at least part of one; blocks when nothing is.

        Raises:
            LinkClosed: the other side is gone.
        """
        try:
            data, ancillary, _, _ = self.socket.recvmsg(_CHUNK, socket.CMSG_SPACE(16 * 4), _RECEIVE_FLAGS)
        except TimeoutError:
            return ()
        except OSError as exc:
            raise LinkClosed(str(exc)) from exc
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                self._fds.extend(array.array("i", payload))
        if not data:
            raise LinkClosed("end of stream")
        self._buffer += data
        return self._split()

    def take_fd(self) -> int:
        """The next descriptor that came along; the caller closes it.

        Raises:
            IndexError: none came.
        """
        return self._fds.popleft()

    def close(self) -> None:
        """Close this end and the descriptors that nobody took; idempotent."""
        self.socket.close()
        while self._fds:
            os.close(self._fds.popleft())

    def _split(self) -> list[Message]:
        messages: list[Message] = []
        buffer = self._buffer
        while len(buffer) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(buffer)[0]
            if len(buffer) < end:
                break
            messages.append(json.loads(bytes(buffer[_LENGTH.size : end])))
            del buffer[:end]
        return messages
