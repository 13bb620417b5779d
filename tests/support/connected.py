"""An app whose connections are all there before a test begins."""

from __future__ import annotations

from amqp_tasks import App
from support.eventually import eventually

__all__ = ("connect",)


def connect(app: App) -> None:
    """Open the connection that publishes and the one that takes replies, which otherwise comes a moment later."""
    app.backend.reply_to(timeout=10)
    app.transport.open(timeout=10)
    eventually(lambda: app.transport.statistics().connects == 2, within=10)
