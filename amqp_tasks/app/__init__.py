"""Apps, tasks, calls and results: what users import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from amqp_tasks.app._app import App
from amqp_tasks.app._current import current_app, current_task
from amqp_tasks.app._group_result import GroupResult
from amqp_tasks.app._options import CallOptions, RetryPolicy, TaskOptions
from amqp_tasks.app._registry import TaskRegistry
from amqp_tasks.app._request import DeliveryInfo, Request, current_request
from amqp_tasks.app._result import AsyncResult, allow_join_result, result_from_tuple
from amqp_tasks.app._result_set import ResultSet
from amqp_tasks.app._retry_plan import Backoff, RetryPlan, Steps
from amqp_tasks.app._shared import shared_task
from amqp_tasks.app._task import Task, TaskCall

if TYPE_CHECKING:
    from amqp_tasks.app._dead_letters import DeadLetterFilter, DeadLetters, Requeued
    from amqp_tasks.app._lookup import find_app
    from amqp_tasks.app._migration import (
        Migrated,
        Migration,
        MigrationPlan,
        MigrationProgress,
        MigrationStep,
    )
    from amqp_tasks.app._resuming import FailedStep
    from amqp_tasks.app._workflow_result import WorkflowResult

__all__ = (
    "App",
    "AsyncResult",
    "Backoff",
    "CallOptions",
    "DeadLetterFilter",
    "DeadLetters",
    "DeliveryInfo",
    "FailedStep",
    "GroupResult",
    "Migrated",
    "Migration",
    "MigrationPlan",
    "MigrationProgress",
    "MigrationStep",
    "Request",
    "Requeued",
    "ResultSet",
    "RetryPlan",
    "RetryPolicy",
    "Steps",
    "Task",
    "TaskCall",
    "TaskOptions",
    "TaskRegistry",
    "WorkflowResult",
    "allow_join_result",
    "current_app",
    "current_request",
    "current_task",
    "find_app",
    "result_from_tuple",
    "shared_task",
)


def __getattr__(name: str) -> Any:
    if name == "find_app":
        # Finding an app reads pyproject.toml; programs that only call tasks need not import what that takes.
        from amqp_tasks.app._lookup import find_app

        return find_app
    if name == "FailedStep":
        from amqp_tasks.app._resuming import FailedStep

        return FailedStep
    if name == "WorkflowResult":
        from amqp_tasks.app._workflow_result import WorkflowResult

        return WorkflowResult
    if name in {"DeadLetterFilter", "DeadLetters", "Requeued"}:
        from amqp_tasks.app import _dead_letters

        return getattr(_dead_letters, name)
    if name in {"Migrated", "Migration", "MigrationPlan", "MigrationProgress", "MigrationStep"}:
        from amqp_tasks.app import _migration

        return getattr(_migration, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
