"""Settings of a real Django project, in every style that they may be written in."""

from __future__ import annotations

import re
from typing import Any

import pytest

from acceptance.project import Project
from amqp_tasks.cli import ExitCode
from support import SECRET, Vhost, WorkerProcesses

DJANGOS_OWN = f"""
SECRET_KEY = "{SECRET}"
INSTALLED_APPS = ["django.contrib.contenttypes", "django.contrib.auth"]
DATABASES = {{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}}}
TIME_ZONE = "Asia/Shanghai"
"""
NAMESPACE = """
CELERY_BROKER_URL = "amqp://shop@mq.example//"
CELERY_TASK_DEFAULT_QUEUE = "orders"
CELERY_TASK_ROUTES = {"shop.mail": {"queue": "mails"}}
CELERY_WORKER_CONCURRENCY = 3
"""
OLD_NAMES = """
BROKER_URL = "amqp://shop@mq.example//"
CELERY_DEFAULT_QUEUE = "orders"
CELERY_ROUTES = {"shop.mail": {"queue": "mails"}}
CELERYD_CONCURRENCY = 3
"""
LOWER_CASE = """
broker_url = "amqp://shop@mq.example//"
task_default_queue = "orders"
task_routes = {"shop.mail": {"queue": "mails"}}
worker_concurrency = 3
"""
BY_DJANGO = '"django.conf:settings"'


def write_project(project: Project, settings: str, source: str) -> None:
    project.write("shop_settings.py", DJANGOS_OWN + settings)
    project.write(
        "shop.py",
        f"""
        import os

        from amqp_tasks import App

        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "shop_settings")
        app = App("shop")
        app.config_from_object({source})


        @app.task
        def time_zone() -> str:
            from django.conf import settings

            return settings.TIME_ZONE
        """,
    )


@pytest.mark.parametrize(
    ("settings", "source"),
    [
        (NAMESPACE, f'{BY_DJANGO}, namespace="CELERY"'),
        (OLD_NAMES, BY_DJANGO),
        (LOWER_CASE, '"shop_settings"'),
    ],
    ids=["namespace", "old-names", "lower-case"],
)
def test_a_django_projects_settings_are_read(bare_project: Project, settings: str, source: str) -> None:
    write_project(bare_project, settings, source)

    done = bare_project.run("-A", "shop", "config", "show", "--json", "--changed", PYTHONWARNINGS="error")

    assert done.err == ""
    found: dict[str, Any] = {name: entry["value"] for name, entry in done.data.items()}
    assert found == {
        "broker_url": ["amqp://shop@mq.example:5672//"],
        "task_default_queue": "orders",
        "task_routes": {"shop.mail": {"queue": "mails"}},
        "worker_concurrency": 3,
    }
    assert SECRET not in done.out


def test_lower_case_names_are_not_among_djangos_settings(bare_project: Project) -> None:
    write_project(bare_project, LOWER_CASE, BY_DJANGO)

    assert bare_project.run("-A", "shop", "config", "show", "--json", "--changed").data == {}


def test_a_task_in_a_django_project_runs(
    bare_project: Project, vhost: Vhost, worker_process: WorkerProcesses
) -> None:
    settings = f'CELERY_BROKER_URL = "{vhost.url}"\nCELERY_TASK_DEFAULT_QUEUE = "orders"\n'
    write_project(bare_project, settings, f'{BY_DJANGO}, namespace="CELERY"')
    worker = worker_process("-c", "1", app="shop", cwd=bare_project.path)

    called = bare_project.run("-A", "shop", "call", "shop.time_zone", "--wait")

    assert called.out == '"Asia/Shanghai"\n'
    assert worker.stop() == ExitCode.OK


@pytest.mark.parametrize(
    ("module", "said"),
    [
        ("", "ImproperlyConfigured: .*DJANGO_SETTINGS_MODULE"),
        ("no_such_settings", "No module named 'no_such_settings'"),
    ],
)
def test_a_django_that_is_not_set_up_is_said_in_one_line(
    bare_project: Project, module: str, said: str
) -> None:
    write_project(bare_project, NAMESPACE, f'{BY_DJANGO}, namespace="CELERY"')

    done = bare_project.run("-A", "shop", "config", "show", DJANGO_SETTINGS_MODULE=module)

    assert done.code == ExitCode.USAGE
    assert re.fullmatch(rf"error: config 'django.conf:settings': reading it raised .*{said}.*\n", done.err)
