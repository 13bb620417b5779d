"""Fixtures of the worker tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import Vhost
from support.worker_client import WorkerClient


@pytest.fixture
def client(vhost: Vhost) -> Iterator[WorkerClient]:
    """Calls tasks in the test's virtual host."""
    with WorkerClient(vhost.url) as made:
        yield made
