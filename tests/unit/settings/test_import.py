"""What importing the package costs."""

from __future__ import annotations

import subprocess
import sys

import amqp_tasks.settings

_PROGRAM = """
import sys
from amqp_tasks.settings import BrokerUrl, Conf, mask_secrets, usable_cpus
conf = Conf(environ={})
conf.add_defaults({"worker_concurrency": 2})
conf.config_from_object("no_such_module")
BrokerUrl.parse("amqp://"), mask_secrets("x"), usable_cpus()
print([name for name in ("pydantic", "pydantic_core", "zoneinfo", "kombu", "pika") if name in sys.modules])
"""


def test_importing_settings_and_naming_their_sources_imports_no_pydantic() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _PROGRAM], capture_output=True, text=True, timeout=30, check=True
    )

    assert done.stdout.strip() == "[]"


def test_all_names_exist_and_are_sorted() -> None:
    names = amqp_tasks.settings.__all__

    assert sorted(names) == list(names)
    assert [name for name in names if getattr(amqp_tasks.settings, name, None) is None] == []
