"""The index of delayed tasks on RabbitMQ: right for every process, whatever restarts."""

from __future__ import annotations

import pytest

from amqp_tasks import App
from support import Ledger, Vhost, WorkerProcesses, eventually
from support.retry_app import QUEUE

FAR = 600
APP = "support.retry_app:app"


@pytest.fixture
def calling(vhost: Vhost) -> App:
    return App("calling", broker=vhost.url, task_default_queue=QUEUE, task_delayed_index=True)


@pytest.mark.parametrize("pool", ["prefork", "solo"])
def test_what_a_worker_puts_off_is_listed_for_others_after_it_has_gone(
    calling: App, ledger: Ledger, worker_process: WorkerProcesses, vhost: Vhost, pool: str
) -> None:
    worker = worker_process("-c", "1", "-P", pool, app=APP, env={"AMQP_TASKS_TASK_DELAYED_INDEX": "true"})
    with calling:
        calling.send_task("again", (1, FAR), task_id="put-off")
        calling.send_task("again", (1, FAR), task_id="soon", countdown=1.2)
        calling.send_many(
            ("again", (1, FAR), dict[str, object](), {"task_id": f"{i}", "countdown": FAR + i})
            for i in range(300)
        )
        eventually(lambda: _retries(calling, "put-off", "soon") == {"put-off": 1, "soon": 1})
        worker.kill_all()
        calling.control.revoke("soon")

    with App("another", broker=vhost.url) as another:
        found = another.delayed.find()

    assert [each.id for each in found if each.is_revoked] == ["soon"]
    assert {each.id for each in found} == {"put-off", "soon", *map(str, range(300))}
    assert [each.due for each in found] == sorted(each.due for each in found)


def _retries(app: App, *ids: str) -> dict[str, int]:
    return {each.id: each.retries for each in app.delayed.find(ids)}
