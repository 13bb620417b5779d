"""What amqp_routing exports, and what importing it costs."""

from __future__ import annotations

import copy
import importlib
import pickle
import pkgutil
import subprocess
import sys

import pytest

import amqp_routing

PARTS = [
    importlib.import_module(f"amqp_routing.{part.name}")
    for part in pkgutil.iter_modules(amqp_routing.__path__)
]


def test_each_public_name_is_that_of_its_module() -> None:
    for name in amqp_routing.__all__:
        found = {id(vars(part)[name]) for part in PARTS if name in part.__all__}

        assert found == {id(getattr(amqp_routing, name))}


def test_a_name_that_is_not_public_is_no_attribute() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Quque'"):
        _ = amqp_routing.Quque  # type: ignore[attr-defined]  # pyright: ignore[reportAttributeAccessIssue]

    assert set(amqp_routing.__all__) <= set(dir(amqp_routing))


def test_an_error_is_pickled_and_copied_whole() -> None:
    error = amqp_routing.UnknownExchange("jbos", ("jobs",))

    for twin in (pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert (type(twin), str(twin), vars(twin)) == (type(error), str(error), vars(error))
        assert twin == error
    assert error != amqp_routing.UnknownExchange("jbos")


def test_importing_it_imports_no_client_library() -> None:
    code = "import amqp_routing, sys; print([m for m in ('kombu', 'pika', 'pydantic', 'amqp_tasks') if m in sys.modules])"

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.strip() == "[]"


def test_the_errors_of_amqp_tasks_import_nothing_else_of_it() -> None:
    code = (
        "import amqp_tasks.errors, sys; print(sorted(m for m in sys.modules if m.startswith('amqp_routing')))"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=30
    )

    assert done.stdout.strip() == "['amqp_routing', 'amqp_routing._errors']"
