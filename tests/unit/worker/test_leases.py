"""Leases are renewed for as long as they are held, whatever the store raises."""

from __future__ import annotations

import threading
from typing import Any, cast

import pytest

from amqp_tasks.idempotency import Holder, MemoryStore
from amqp_tasks.worker import _leases
from amqp_tasks.worker._leases import Leases


class _Mute(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize("error", [SystemExit, _Mute])
def test_a_store_that_exits_or_fails_without_a_text_is_asked_again(
    monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    class Failing(MemoryStore):
        def renew(self, key: str, holder: Holder, *, lease: float) -> None:
            if not failed.is_set():
                failed.set()
                raise error
            renewed.set()

    failed, renewed = threading.Event(), threading.Event()
    monkeypatch.setattr(_leases, "EVERY", 0.01)
    leases = Leases(Failing())

    leases.hold("key", Holder("task", "run"), cast("Any", None))

    assert renewed.wait(10)
    leases.close(timeout=5)
