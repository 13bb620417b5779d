"""The project that the commands run in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from acceptance.project import Project
from support import Vhost


@pytest.fixture
def bare_project(tmp_path: Path) -> Project:
    """An empty directory; no broker is named, and nothing of ours is in the environment."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AMQP_TASKS_")}
    return Project(path=tmp_path, environment=kept | {"COLUMNS": "100"})


@pytest.fixture
def project(bare_project: Project, vhost: Vhost) -> Project:
    """The app `proj` with two queues, on a virtual host of its own; AMQP_TASKS_APP names it."""
    bare_project.write(
        "proj.py",
        """
        from amqp_tasks import App

        app = App("proj", task_routes={"proj.add": "hipri", "proj.fail": "lopri"})

        @app.task
        def add(x: int, y: int) -> int:
            return x + y

        @app.task
        def fail(text: str) -> None:
            raise ValueError(text)
        """,
    )
    bare_project.environment |= {"AMQP_TASKS_BROKER_URL": vhost.url, "AMQP_TASKS_APP": "proj"}
    return bare_project
