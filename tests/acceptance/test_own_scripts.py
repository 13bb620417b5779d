"""Programs as users write them: parts that share nothing but a broker, and scripts with names of their own choice."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from acceptance.project import Project
from support import RawClient, TcpProxy, Vhost, eventually
from support.workers import WorkerProcesses


def run(script: Path, *arguments: str, cwd: Path, timeout: float = 60.0) -> str:
    done = subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def script(directory: Path, name: str, text: str) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / name
    path.write_text(textwrap.dedent(text))
    return path


def test_producer_worker_and_reader_share_only_a_broker_and_a_name(
    tmp_path: Path, vhost: Vhost, worker_process: WorkerProcesses, raw_client: RawClient
) -> None:
    producer = script(
        tmp_path / "producer",
        "producer.py",
        f"""
        from amqp_tasks import App

        with App("producer", broker={vhost.url!r}) as app:
            app.send_task("stock.count", ("apples",), {{"kept": 2}}, reply_to="answers", task_id="order-1")
        """,
    )
    script(
        tmp_path / "worker",
        "stock.py",
        f"""
        from amqp_tasks import App

        app = App("stock", broker={vhost.url!r})

        @app.task(name="stock.count")
        def count(what: str, *, kept: int) -> str:
            return f"{{what}}: {{kept + 40}}"
        """,
    )
    reader = script(
        tmp_path / "reader",
        "reader.py",
        """
        import json, sys, time
        import pika

        channel = pika.BlockingConnection(pika.URLParameters(sys.argv[1])).channel()
        for _, properties, body in channel.consume("answers", inactivity_timeout=30):
            print(json.dumps([properties.correlation_id, json.loads(body)["result"]]))
            break
        """,
    )
    raw_client.channel.queue_declare("answers", durable=True)

    run(producer, cwd=producer.parent)
    worker_process("-P", "threads", app="stock", cwd=tmp_path / "worker")

    assert json.loads(run(reader, vhost.url, cwd=reader.parent)) == ["order-1", "apples: 42"]


@pytest.mark.parametrize("name", ["celery.py", "tasks.py"])
def test_a_script_runs_the_command_line_with_its_app(tmp_path: Path, name: str) -> None:
    path = script(
        tmp_path,
        name,
        """
        from __future__ import absolute_import
        from amqp_tasks import App

        app = App("mine", broker="memory://")

        if __name__ == "__main__":
            app.start()
        """,
    )

    assert "--concurrency" in run(path, "worker", "--help", cwd=tmp_path)
    assert run(path, "queues", "--help", cwd=tmp_path)


def test_modules_of_a_project_may_be_named_like_us(bare_project: Project) -> None:
    (bare_project.path / "proj").mkdir()
    bare_project.write("proj/__init__.py", "")
    bare_project.write(
        "proj/celery.py", "from amqp_tasks import App\napp = App('inner', broker='memory://')\n"
    )
    bare_project.write("proj/amqp_tasks.py", "from proj.celery import app\n")

    for spec in ("proj", "proj.celery", "proj.amqp_tasks", "proj.amqp_tasks:app"):
        done = bare_project.run("-A", spec, "config", "show", "--json")
        assert done.code == 0, done.err


def test_the_reply_queue_of_a_script_goes_with_it(tmp_path: Path, vhost: Vhost) -> None:
    path = script(
        tmp_path,
        "short.py",
        f"""
        from amqp_tasks import App

        app = App("short", broker={vhost.url!r})
        app.send_task("t")
        print(app.backend.reply_to(timeout=1))
        """,
    )

    name = run(path, cwd=tmp_path).strip()

    eventually(lambda: name not in [queue["name"] for queue in vhost.queues()])


@pytest.mark.parametrize("fault", [TcpProxy.refuse, TcpProxy.blackhole])
def test_a_script_ends_soon_although_its_broker_is_gone(
    tmp_path: Path, proxy: TcpProxy, fault: Callable[[TcpProxy], None]
) -> None:
    path = script(
        tmp_path,
        "short.py",
        f"""
        from amqp_tasks import App

        app = App("short", broker={proxy.url_for()!r})
        app.send_task("t")
        print("sent", flush=True)
        input()
        """,
    )
    with subprocess.Popen(
        [sys.executable, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "sent\n"

        fault(proxy)
        process.communicate("\n", timeout=15)

    assert process.returncode == 0
