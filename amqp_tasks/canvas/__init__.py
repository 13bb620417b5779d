"""Workflows as values: signatures, and what is composed of them. Pure: nothing here sends anything.

A signature is what a call needs, packed up: it can be sent, kept, and be an argument of another call. On the wire it is
Celery's dictionary, see `docs/reference/wire-protocol.md`; `docs/explanation/workflows.md` tells what becomes of it.
"""

from __future__ import annotations

from amqp_tasks.canvas._compose import chain, chord, chunks, group, signature, upgraded, xmap, xstarmap
from amqp_tasks.canvas._launch import (
    Gathering,
    Join,
    Message,
    abandoned,
    accumulated,
    added_index,
    first_errbacks,
    freeze,
    launch,
)
from amqp_tasks.canvas._signature import Sender, Signature, send_others_with, signatures

__all__ = (
    "Gathering",
    "Join",
    "Message",
    "Sender",
    "Signature",
    "abandoned",
    "accumulated",
    "added_index",
    "chain",
    "chord",
    "chunks",
    "first_errbacks",
    "freeze",
    "group",
    "launch",
    "send_others_with",
    "signature",
    "signatures",
    "upgraded",
    "xmap",
    "xstarmap",
)
