"""Fixtures of the worker's unit tests."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _no_code_in_collections() -> Iterator[None]:  # pyright: ignore[reportUnusedFunction]
    """Take hypothesis' callback out of the garbage collector: an interruption that strikes in there is swallowed."""
    callbacks = list(gc.callbacks)
    gc.callbacks.clear()
    yield
    gc.callbacks[:] = callbacks
