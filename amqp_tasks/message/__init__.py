"""Messages: Celery's task protocol 2 and result messages, built and read; no I/O.

See `docs/reference/wire-protocol.md` for the format.
"""

from amqp_tasks.message._again import new_body, run_again
from amqp_tasks.message._amqp import (
    SIGNED_AS_RESULT,
    SIGNED_AS_TASK,
    HeaderTemplate,
    HeaderValue,
    OutgoingMessage,
    Properties,
    signed_for_queue,
)
from amqp_tasks.message._counts import (
    ACCOUNT_NAME,
    COUNTED,
    ENDS,
    CountReport,
    account_queue,
    count_message,
    read_counts,
)
from amqp_tasks.message._dead_letter import DEAD_SUFFIX, dead_letter, dead_letter_note, dead_letter_queue_name
from amqp_tasks.message._decimals import decimal_from_table, table_decimal
from amqp_tasks.message._delayed import (
    DELAYED_NAME,
    DelayedTask,
    delayed_notes,
    delayed_queue,
    delayed_task,
    noted_tasks,
)
from amqp_tasks.message._envelope import Envelope, Payload, read_envelope, read_payload
from amqp_tasks.message._exceptions import exception_from_data, exception_to_data
from amqp_tasks.message._further import FURTHER_PROPERTIES, check_further_properties, further_properties
from amqp_tasks.message._headers import (
    ERROR_TIME,
    FIRST_ERROR_TIME,
    IDEMPOTENCY_HEADER,
    RATE_HEADER,
    REQUEUES_HEADER,
    SIGNATURE_HEADER,
    SNOOZES_HEADER,
    check_user_headers,
)
from amqp_tasks.message._join_watch import (
    WATCH_TASK,
    JoinWatch,
    first_step,
    read_watch,
    watch_id,
    watch_message,
)
from amqp_tasks.message._joins import (
    JOIN_PREFIX,
    JOINS_HEADER,
    JoinOutcome,
    JoinTold,
    Needed,
    definition_message,
    is_for_join,
    outcome_message,
    read_join,
    read_joins,
    read_needs,
    told_message,
    told_outcome,
)
from amqp_tasks.message._journal import (
    JOURNAL_NAME,
    JournalEntry,
    entry_from_data,
    fact_text,
    fact_texts,
    journal_message,
    journal_queue,
    read_journal_entry,
)
from amqp_tasks.message._letters import DeadLetter
from amqp_tasks.message._mark import STEP_HEADER, StepMark, read_mark
from amqp_tasks.message._moved import moved
from amqp_tasks.message._printable import bounded_repr, listed, printable
from amqp_tasks.message._process import current_origin, derived_ids, new_sortable_id, new_task_id
from amqp_tasks.message._rate_tokens import (
    RATE_PREFIX,
    TokenPlan,
    token_plan,
)
from amqp_tasks.message._results import ResultRecord, State, build_result, read_result, write_result
from amqp_tasks.message._signing import KeyRing
from amqp_tasks.message._stamps import (
    check_stamps,
    has_stamp,
    plain_stamp,
    read_stamps,
    stamp_headers,
    stamp_values,
)
from amqp_tasks.message._template import TaskTemplate, check_task_id, check_task_name
from amqp_tasks.serialization._limits import DEFAULT_LIMITS, Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = (
    "ACCOUNT_NAME",
    "COUNTED",
    "DEAD_SUFFIX",
    "DEFAULT_LIMITS",
    "DELAYED_NAME",
    "ENDS",
    "ERROR_TIME",
    "FIRST_ERROR_TIME",
    "FURTHER_PROPERTIES",
    "IDEMPOTENCY_HEADER",
    "JOINS_HEADER",
    "JOIN_PREFIX",
    "JOURNAL_NAME",
    "RATE_HEADER",
    "RATE_PREFIX",
    "REQUEUES_HEADER",
    "SIGNATURE_HEADER",
    "SIGNED_AS_RESULT",
    "SIGNED_AS_TASK",
    "SNOOZES_HEADER",
    "STEP_HEADER",
    "WATCH_TASK",
    "CountReport",
    "DeadLetter",
    "DeadLetterReason",
    "DelayedTask",
    "Envelope",
    "HeaderTemplate",
    "HeaderValue",
    "JoinOutcome",
    "JoinTold",
    "JoinWatch",
    "JournalEntry",
    "KeyRing",
    "Limits",
    "Needed",
    "OutgoingMessage",
    "Payload",
    "Properties",
    "ResultRecord",
    "State",
    "StepMark",
    "TaskTemplate",
    "TokenPlan",
    "account_queue",
    "bounded_repr",
    "build_result",
    "check_further_properties",
    "check_stamps",
    "check_task_id",
    "check_task_name",
    "check_user_headers",
    "count_message",
    "current_origin",
    "dead_letter",
    "dead_letter_note",
    "dead_letter_queue_name",
    "decimal_from_table",
    "definition_message",
    "delayed_notes",
    "delayed_queue",
    "delayed_task",
    "derived_ids",
    "entry_from_data",
    "exception_from_data",
    "exception_to_data",
    "fact_text",
    "fact_texts",
    "first_step",
    "further_properties",
    "has_stamp",
    "is_for_join",
    "journal_message",
    "journal_queue",
    "listed",
    "moved",
    "new_body",
    "new_sortable_id",
    "new_task_id",
    "noted_tasks",
    "outcome_message",
    "plain_stamp",
    "printable",
    "read_counts",
    "read_envelope",
    "read_join",
    "read_joins",
    "read_journal_entry",
    "read_mark",
    "read_needs",
    "read_payload",
    "read_result",
    "read_stamps",
    "read_watch",
    "run_again",
    "signed_for_queue",
    "stamp_headers",
    "stamp_values",
    "table_decimal",
    "token_plan",
    "told_message",
    "told_outcome",
    "watch_id",
    "watch_message",
    "write_result",
)
