"""Telling systemd how a node is, where it is started as `Type=notify` or with `WatchdogSec=`.

See sd_notify(3): datagrams of lines `NAME=value` to the socket that the environment names.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ("ServiceManager", "service_manager")

logger = logging.getLogger(__name__)

_VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """Told by whoever tells of the node's health; by one thread.

    Args:
        address: of its socket.
    """

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._was_ready = self._has_warned = False
        self._status = ""

    def tell(self, report: Mapping[str, Any]) -> None:
        """Tell what is new of a report of `Health`, and that the watchdog need not bite if the node is live."""
        if lines := list(self._news(report)):
            self._send("\n".join(lines))

    def _news(self, report: Mapping[str, Any]) -> Iterator[str]:
        if not report["not_live"]:
            yield "WATCHDOG=1"
        if not report["not_ready"] and not self._was_ready:
            self._was_ready = True
            yield "READY=1"
        if report["state"] == "stopping":
            yield "STOPPING=1"
        status = "; ".join((*report["not_live"], *report["not_ready"])) or str(report["state"])
        if status != self._status:
            self._status = status
            yield "STATUS=" + " ".join(status.split())

    def _send(self, text: str) -> None:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sending:
                sending.setblocking(False)
                sending.sendto(text.encode(), self._address)
        except OSError as exc:
            if not self._has_warned:
                self._has_warned = True
                logger.warning("systemd cannot be told how the node is: %s", exc, extra={"action": "notify"})


def service_manager(environ: Mapping[str, str]) -> ServiceManager | None:
    """The one that has started us and wants to be told; None: there is none."""
    address = environ.get(_VARIABLE)
    return ServiceManager(address) if address else None
