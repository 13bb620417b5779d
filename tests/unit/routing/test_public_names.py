"""What amqp_routing exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys
import types

import amqp_routing


def test_all_names_every_public_name() -> None:
    public = {
        name
        for name, value in vars(amqp_routing).items()
        if not name.startswith("_") and not isinstance(value, types.ModuleType)
    }

    assert set(amqp_routing.__all__) == public
    assert len(amqp_routing.__all__) == len(public)


def test_importing_it_imports_no_client_library() -> None:
    code = "import amqp_routing, sys; print([m for m in ('kombu', 'pika', 'pydantic', 'amqp_tasks') if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.strip() == "[]"
