"""Commands and options of Celery's that do not exist here: each with the reason and what to do, for who moves over."""

from __future__ import annotations

from collections.abc import Mapping

import click

__all__ = ("COMMANDS", "WORKER_OPTIONS", "celery_option_refusal")

_NO_EVENTS = "there are no events yet; leave it out"
_NO_SCHEDULER = "there is no scheduler yet; leave it out"
_NOT_SAID = "workers do not talk to each other; leave it out"

WORKER_OPTIONS: Mapping[str, str] = {
    "--autoscale": "the number of slots is fixed; use -c",
    "-B": _NO_SCHEDULER,
    "--beat": _NO_SCHEDULER,
    "-s": _NO_SCHEDULER,
    "--schedule": _NO_SCHEDULER,
    "--schedule-filename": _NO_SCHEDULER,
    "--scheduler": _NO_SCHEDULER,
    "-D": "a worker stays in the foreground; run it under systemd or in a container",
    "--detach": "a worker stays in the foreground; run it under systemd or in a container",
    "--disable-prefetch": "messages are prefetched by how long tasks take; use --prefetch-multiplier 1",
    "-E": _NO_EVENTS,
    "--task-events": _NO_EVENTS,
    "--events": _NO_EVENTS,
    "--executable": "start it with that Python, as in python3.12 -m amqp_tasks worker",
    "--heartbeat-interval": "set broker_heartbeat",
    "--loader": "there are no loaders; name the app with -A",
    "-O": "a task always goes to a free process; leave it out",
    "--optimization": "a task always goes to a free process; leave it out",
    "--pool-start-method": "processes always come from a template process; leave it out",
    "--result-backend": "set AMQP_TASKS_RESULT_BACKEND",
    "-S": "what is revoked stands in a stream of the broker; leave it out",
    "--statedb": "what is revoked stands in a stream of the broker; leave it out",
    "--skip-checks": "nothing checks a Django project here; leave it out",
    "--without-gossip": _NOT_SAID,
    "--without-heartbeat": _NOT_SAID,
    "--without-mingle": _NOT_SAID,
}
"""Options of `celery worker`."""

COMMANDS: Mapping[str, str] = {
    "amqp": "use queues, topology and purge, or RabbitMQ's own rabbitmqadmin",
    "beat": "there is no scheduler yet",
    "control": "use pause, resume, revoke, unrevoke, or app.control in Python",
    "events": "there are no events yet",
    "flower": "workers answer no questions yet; use queues and account, and RabbitMQ's management pages",
    "graph": "use topology graph for queues, or graph() of a result",
    "inspect": "workers answer no questions yet; use queues for what waits and who consumes",
    "list": "use topology show",
    "logtool": "read the log with what you read logs with",
    "migrate": "use topology migrate for a queue, dlq requeue for dead letters",
    "multi": "start each worker on its own, under systemd or in containers",
    "shell": "use python, and import the app",
    "status": "workers answer no questions yet; use queues for what waits and who consumes",
    "upgrade": "use config show, which names each setting of Celery's that does not exist here",
}
"""Commands of `celery`."""


def celery_option_refusal(error: click.ClickException) -> str | None:
    """What to say of an option that only Celery's worker has; None for any other error."""
    if not isinstance(error, click.NoSuchOption) or error.ctx is None or error.ctx.info_name != "worker":
        return None
    remedy = WORKER_OPTIONS.get(error.option_name)
    return remedy and f"no such option {error.option_name!r}, which is Celery's: {remedy}"
