"""Telling a task of its end where no run of it can: `on_dead` after crashes, a hard time limit, a body that cannot be read.

See "on_dead" in `docs/explanation/retries.md`.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from amqp_tasks.app._hooks import tell_dead
from amqp_tasks.message import Limits, printable, read_payload

if TYPE_CHECKING:
    from amqp_tasks.app import Request
    from amqp_tasks.message import Envelope
    from amqp_tasks.worker._job import Job

__all__ = ("LastWords",)

logger = logging.getLogger(__name__)

GRACE = 2.0
"""Seconds for a hook in a process that is about to end; its outcome must still be published after that."""


class LastWords:
    """Calls `on_dead`; a task without it costs nothing here.

    Thread safety: any thread but the I/O thread, which runs no users' code.

    Args:
        request_of: the request of a message, without arguments.
        accept: content types whose bodies may be decoded.
        limits: of bodies.
        came_back: see `run_hooks`.
    """

    def __init__(
        self,
        *,
        request_of: Callable[[Job, Envelope], Request],
        accept: Sequence[str],
        limits: Limits,
        came_back: Callable[[BaseException | None], None],
    ) -> None:
        self._request_of, self._accept, self._limits = request_of, accept, limits
        self._came_back = came_back

    def say(self, job: Job, error: Exception) -> None:
        """Call the hook, if there is one; raises nothing."""
        if job.has_last_words and job.task is not None and job.envelope is not None:
            tell_dead(job.task, self._request(job, job.envelope), error, self._came_back)

    def say_in_time(self, job: Job, error: Exception) -> None:
        """As `say`, for `GRACE` seconds at most: after them the hook goes on alone, until its process ends."""
        if not job.has_last_words:
            return
        hook = threading.Thread(target=self.say, args=(job, error), name="amqp-tasks-last-words", daemon=True)
        hook.start()
        hook.join(GRACE)
        if hook.is_alive():
            logger.warning(
                "on_dead of task %s takes longer than %g s; its process ends", printable(job.name), GRACE,
                extra={"action": "hook_late"},
            )  # fmt: skip

    def _request(self, job: Job, envelope: Envelope) -> Request:
        """With the arguments, as far as they can be had."""
        request, task = self._request_of(job, envelope), job.task
        assert task is not None
        try:
            payload = read_payload(envelope, job.delivery.body, accept=self._accept, limits=self._limits)
            request.args, request.kwargs = tuple(payload.args), dict(payload.kwargs)
            args, kwargs = task.parameters.load(payload.args, payload.kwargs)
        except (Exception, SystemExit):  # noqa: BLE001 - its end may be that they cannot be read, and validators are users' code
            return request
        request.args, request.kwargs = tuple(args), dict(kwargs)
        return request
