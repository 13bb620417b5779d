"""Faults that only several settings together make."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from amqp_tasks.settings._models import Settings

__all__ = ("Clash", "clashes")


@dataclass(frozen=True, slots=True)
class Clash:
    """Settings that do not go together, and what to do."""

    names: tuple[str, ...]
    text: str


def clashes(settings: Settings) -> Iterator[Clash]:
    """Every clash in settings whose values are right one by one."""
    for check in (_broker, _urls, _priorities, _contents, _sizes, _limits, _pool, _signatures):
        yield from check(settings)


def _broker(settings: Settings) -> Iterator[Clash]:
    broker = settings.broker
    has_tls = broker.use_ssl is not None or all(url.tls for url in broker.url)
    if broker.login_method == "EXTERNAL" and not has_tls:
        yield Clash(
            ("broker_login_method", "broker_url", "broker_use_ssl"),
            "broker_login_method='EXTERNAL' needs TLS for the client's certificate; use amqps:// and broker_use_ssl",
        )
    if broker.use_ssl is not None and broker.use_ssl.keyfile and not broker.use_ssl.certfile:
        yield Clash(
            ("broker_use_ssl",), "broker_use_ssl has a keyfile without a certfile; add the certificate"
        )


def _urls(settings: Settings) -> Iterator[Clash]:
    urls = settings.broker.url
    if len({url.scheme == "memory" for url in urls}) > 1:
        yield Clash(("broker_url",), "broker_url mixes memory:// with real brokers; keep one kind")
    for option in ("heartbeat", "connection_timeout"):
        if len({getattr(url, option) for url in urls}) > 1:
            yield Clash(
                ("broker_url",),
                f"broker_url has different {option}= options; write it in all URLs alike or use broker_{option}",
            )


def _priorities(settings: Settings) -> Iterator[Clash]:
    task = settings.task
    if task.queue_max_priority is None:
        return
    for name, kind in (
        ("task_default_queue_type", task.default_queue_type),
        ("task_create_missing_queue_type", task.create_missing_queue_type),
    ):
        if kind == "quorum":
            yield Clash(
                ("task_queue_max_priority", name),
                f"task_queue_max_priority={task.queue_max_priority} needs classic queues, as quorum queues refuse "
                f"x-max-priority; set {name}='classic'",
            )
    if (task.default_priority or 0) > task.queue_max_priority:
        yield Clash(
            ("task_default_priority", "task_queue_max_priority"),
            f"task_default_priority={task.default_priority} is above task_queue_max_priority={task.queue_max_priority}; "
            "lower the one or raise the other",
        )


def _contents(settings: Settings) -> Iterator[Clash]:
    accepted, own = settings.app.accept_content, settings.result.accept_content
    if settings.task.serializer not in accepted:
        yield _refused("task_serializer", settings.task.serializer, "accept_content", accepted)
    if own is None and settings.result.serializer not in accepted:
        # Results are read by `accept_content` only as long as they have no list of their own.
        yield _refused(
            "result_serializer",
            settings.result.serializer,
            "accept_content",
            accepted,
            "result_accept_content",
        )
    if own is not None and settings.result.serializer not in own:
        yield _refused("result_serializer", settings.result.serializer, "result_accept_content", own)


def _refused(name: str, serializer: str, accept_name: str, accepted: tuple[str, ...], *further: str) -> Clash:
    text = f"{name}={serializer!r} is not in {accept_name}={accepted!r}, so it would be refused on arrival"
    return Clash((name, accept_name, *further), f"{text}; add it to {accept_name}")


def _sizes(settings: Settings) -> Iterator[Clash]:
    warn, limit = settings.app.warn_message_bytes, settings.app.max_message_bytes
    if warn > limit:
        yield Clash(
            ("warn_message_bytes", "max_message_bytes"),
            f"warn_message_bytes={warn} is above max_message_bytes={limit}, so it would never warn; lower it",
        )


def _limits(settings: Settings) -> Iterator[Clash]:
    hard, soft = settings.task.time_limit, settings.task.soft_time_limit
    if hard and soft and soft >= hard:
        yield Clash(
            ("task_soft_time_limit", "task_time_limit"),
            f"task_soft_time_limit={soft:g} is not below task_time_limit={hard:g}, which would always be first; "
            "lower the one or raise the other",
        )


def _pool(settings: Settings) -> Iterator[Clash]:
    worker = settings.worker
    if worker.pool == "solo" and (worker.concurrency or 1) > 1:
        yield Clash(
            ("worker_pool", "worker_concurrency"),
            f"worker_pool='solo' runs one task at a time, but worker_concurrency={worker.concurrency}; "
            "remove that or use 'threads' or 'prefork'",
        )


def _signatures(settings: Settings) -> Iterator[Clash]:
    if settings.security.require_signatures and not settings.security.signing_keys:
        yield Clash(
            ("security_require_signatures", "security_signing_keys"),
            "security_require_signatures=True with no key in security_signing_keys, so that nothing is signed or refused; "
            "give keys, or remove it",
        )
