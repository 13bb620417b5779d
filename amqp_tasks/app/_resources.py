"""What follows from an app's settings, made together and replaced together."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from amqp_routing import Router
from amqp_tasks.app._calls import Calls
from amqp_tasks.app._declaration import set_options
from amqp_tasks.app._destination import check_routes
from amqp_tasks.app._options import check_destination, check_task_values
from amqp_tasks.app._topology import Topologies
from amqp_tasks.backends.disabled import DisabledBackend
from amqp_tasks.backends.rpc import RpcBackend, RpcOptions
from amqp_tasks.errors import ConfigurationError
from amqp_tasks.events import Events
from amqp_tasks.message import Limits
from amqp_tasks.transport import TopologyMode, connect

if TYPE_CHECKING:
    from amqp_tasks.app._app import App
    from amqp_tasks.app._task import Task
    from amqp_tasks.backend import ResultBackend
    from amqp_tasks.settings import Settings
    from amqp_tasks.transport import Transport

__all__ = ("Resources",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """Router, topologies, transport, backend, events and calls of one generation of the settings."""

    generation: int
    settings: Settings
    router: Router
    topologies: Topologies
    transport: Transport
    backend: ResultBackend
    events: Events
    calls: Calls

    @classmethod
    def of(cls, app: App, previous: Resources | None) -> Resources:
        """Made from the app's present settings; connections of `previous` are kept when their settings are the same.

        Raises:
            SettingsError: the settings are wrong.
            ConfigurationError: a route that no call could take, or annotations that no task could have.
            RoutingError: routes or queues do not fit together.
        """
        generation, settings = app.conf.generation, app.settings
        router = Router(settings.task.routes)
        check_routes(router)
        _check_annotations(settings)
        topologies = Topologies(settings, router)
        if previous is not None and _same_connections(previous.settings, settings):
            transport, backend, events = previous.transport, previous.backend, previous.events
        else:
            if previous is not None:
                previous.close(timeout=5.0)
            transport = _transport(settings)
            backend = _backend(settings, transport)
            events = Events(transport, TopologyMode(settings.app.topology))
        made = cls(
            generation=generation,
            settings=settings,
            router=router,
            topologies=topologies,
            transport=transport,
            backend=backend,
            events=events,
            calls=Calls(app, settings, router, topologies, transport, backend),
        )
        for task in app.tasks.values():
            made.annotate(task)
        return made

    def annotate(self, task: Task[..., Any]) -> None:
        """Put the attributes of `task_annotations` on a task: those of `*`, then those of its name.

        Raises:
            ConfigurationError: an attribute that is no option of a task.
        """
        for annotation in _annotations(self.settings):
            for attributes in _attributes(annotation, task):
                try:
                    set_options(task, attributes)
                except ConfigurationError as exc:
                    raise ConfigurationError(f"task_annotations: {exc}") from exc

    def close(self, *, timeout: float) -> None:
        """Release the connections within `timeout` seconds, and a moment more if they have to be cut."""
        deadline = time.monotonic() + timeout
        # Half of it: a reply queue that is not deleted expires, and messages may still wait for their confirms.
        self.backend.close(timeout=timeout / 2)
        self.transport.close(timeout=max(0.0, deadline - time.monotonic()))


def _same_connections(old: Settings, new: Settings) -> bool:
    return (
        old.broker == new.broker
        and old.result == new.result
        and old.app == new.app
        and old.security == new.security
        and old.task.delayed_index == new.task.delayed_index
    )


def _transport(settings: Settings) -> Transport:
    transport = connect(settings)
    if not settings.task.delayed_index:
        return transport
    from amqp_tasks.app._indexing import IndexingTransport

    mode = TopologyMode(settings.app.topology)
    return IndexingTransport(transport, mode, timeout=settings.task.publish_timeout)


def _backend(settings: Settings, transport: Transport) -> ResultBackend:
    result = settings.result
    if result.backend is None:
        return DisabledBackend()
    options = RpcOptions(
        expires=result.expires,
        serializer=result.serializer,
        compression=result.compression,
        is_persistent=result.persistent,
        accept=result.accept_content or settings.app.accept_content,
        cache_max=result.cache_max,
        limits=Limits(max_message_bytes=settings.app.max_message_bytes),
        is_replicated=_is_replicated(settings),
        idle_timeout=settings.broker.idle_timeout,
        keys=transport.keys,
    )
    return RpcBackend(lambda: transport, options)


def _is_replicated(settings: Settings) -> bool:
    """Whether the reply queue must outlive one broker node: by default, where there are several to go to."""
    chosen = settings.result.queue_type
    return len(settings.broker.url) > 1 if chosen is None else chosen == "quorum"


def _annotations(settings: Settings) -> Sequence[Any]:
    given: Any = settings.task.annotations
    return cast("Sequence[Any]", given if isinstance(given, list | tuple) else (given,))


def _check_annotations(settings: Settings) -> None:
    """Refuse what no task could be given, also for tasks that are not declared yet. What `annotate` answers, and which names of options
    a task's class has, is not known before there is the task.

    Raises:
        ConfigurationError: values that cannot be, or a queue together with an exchange; all at once.
    """
    faults: list[str] = []
    for annotation in _annotations(settings):
        for name, given in _mapping(annotation).items():
            attributes = _mapping(given)  # what is none is said of the task that gets it
            try:
                check_task_values(attributes, "option")
                check_destination(attributes.get("queue"), attributes.get("exchange"))
            except ConfigurationError as exc:
                faults.append(f"task_annotations, {name!r}: {exc}")
    if faults:
        raise ConfigurationError("; ".join(faults))


def _mapping(value: Any) -> Mapping[str, Any]:
    """The value, if it is one, else an empty one."""
    return cast("Mapping[str, Any]", value) if isinstance(value, Mapping) else {}


def _attributes(annotation: Any, task: Task[..., Any]) -> list[Mapping[str, Any]]:
    if annotation is None:
        return []
    if isinstance(annotation, Mapping):
        by_name = cast("Mapping[str, Any]", annotation)
        found = [by_name.get("*"), by_name.get(task.name)]
    elif hasattr(annotation, "annotate"):
        found = [annotation.annotate(task)]
    else:
        raise ConfigurationError(
            f"task_annotations: {annotation!r:.80} is no mapping and has no annotate(task)"
        )
    for attributes in found:
        if not isinstance(attributes, Mapping | None):
            raise ConfigurationError(
                f"task_annotations: task {task.name!r} gets {attributes!r:.80}, expected a mapping of attributes"
            )
    return [attributes for attributes in found if attributes]
