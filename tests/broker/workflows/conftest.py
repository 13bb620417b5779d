"""Fixtures of the workflow tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from amqp_tasks import App
from support import Ledger, Vhost
from support.workflow_app import app


@pytest.fixture
def caller(vhost: Vhost, ledger: Ledger) -> Iterator[App]:
    """The app of the tests as a caller has it; its signatures are sent to the test's broker."""
    app.conf.update(broker_url=vhost.url)
    yield app
    app.resources.close(timeout=5.0)
