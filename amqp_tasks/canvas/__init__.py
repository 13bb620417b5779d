"""Workflows as values: signatures, and what is composed of them. Pure: nothing here sends anything.

A signature is what a call needs, packed up: it can be sent, kept, and be an argument of another call. On the wire it is
Celery's dictionary, see `docs/reference/wire-protocol.md`; `docs/explanation/workflows.md` tells what becomes of it.
"""

from __future__ import annotations

from amqp_tasks.canvas._compose import chain, chord, chunks, group, signature, upgraded, xmap, xstarmap
from amqp_tasks.canvas._launch import (
    ACCUMULATE,
    Gathering,
    Join,
    Message,
    abandoned,
    accumulated,
    added_index,
    first_errbacks,
    freeze,
    launch,
    placed_in,
)
from amqp_tasks.canvas._signature import (
    Sender,
    Signature,
    StampingVisitor,
    signatures,
    with_call_options,
    with_options,
)
from amqp_tasks.canvas._steps import Step, Workflow, freeze_steps, join_queues, launch_steps, waiting_in

__all__ = (
    "ACCUMULATE",
    "Gathering",
    "Join",
    "Message",
    "Sender",
    "Signature",
    "StampingVisitor",
    "Step",
    "Workflow",
    "abandoned",
    "accumulated",
    "added_index",
    "chain",
    "chord",
    "chunks",
    "first_errbacks",
    "freeze",
    "freeze_steps",
    "group",
    "join_queues",
    "launch",
    "launch_steps",
    "placed_in",
    "signature",
    "signatures",
    "upgraded",
    "waiting_in",
    "with_call_options",
    "with_options",
    "xmap",
    "xstarmap",
)
