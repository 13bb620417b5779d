"""Messages: Celery's task protocol 2 and result messages, built and read; no I/O.

See `docs/reference/wire-protocol.md` for the format.
"""

from amqp_tasks.message._again import new_body, run_again
from amqp_tasks.message._amqp import HeaderTemplate, HeaderValue, OutgoingMessage, Properties
from amqp_tasks.message._dead_letter import DEAD_SUFFIX, dead_letter, dead_letter_note, dead_letter_queue_name
from amqp_tasks.message._envelope import Envelope, Payload, read_envelope, read_payload
from amqp_tasks.message._exceptions import exception_from_data, exception_to_data
from amqp_tasks.message._further import FURTHER_PROPERTIES, check_further_properties, further_properties
from amqp_tasks.message._headers import FIRST_ERROR_TIME, RATE_HEADER, SNOOZES_HEADER
from amqp_tasks.message._joins import (
    JOIN_PREFIX,
    JOINS_HEADER,
    JoinOutcome,
    definition_message,
    outcome_message,
    read_join,
    read_joins,
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
from amqp_tasks.message._moved import moved
from amqp_tasks.message._printable import bounded_repr, printable
from amqp_tasks.message._process import current_origin, new_task_id
from amqp_tasks.message._results import ResultRecord, State, build_result, read_result
from amqp_tasks.message._template import TaskTemplate, check_task_id, check_task_name
from amqp_tasks.serialization._limits import DEFAULT_LIMITS, Limits
from amqp_tasks.serialization._reasons import DeadLetterReason

__all__ = (
    "DEAD_SUFFIX",
    "DEFAULT_LIMITS",
    "FIRST_ERROR_TIME",
    "FURTHER_PROPERTIES",
    "JOINS_HEADER",
    "JOIN_PREFIX",
    "JOURNAL_NAME",
    "RATE_HEADER",
    "SNOOZES_HEADER",
    "DeadLetter",
    "DeadLetterReason",
    "Envelope",
    "HeaderTemplate",
    "HeaderValue",
    "JoinOutcome",
    "JournalEntry",
    "Limits",
    "OutgoingMessage",
    "Payload",
    "Properties",
    "ResultRecord",
    "State",
    "TaskTemplate",
    "bounded_repr",
    "build_result",
    "check_further_properties",
    "check_task_id",
    "check_task_name",
    "current_origin",
    "dead_letter",
    "dead_letter_note",
    "dead_letter_queue_name",
    "definition_message",
    "entry_from_data",
    "exception_from_data",
    "exception_to_data",
    "fact_text",
    "fact_texts",
    "further_properties",
    "journal_message",
    "journal_queue",
    "moved",
    "new_body",
    "new_task_id",
    "outcome_message",
    "printable",
    "read_envelope",
    "read_join",
    "read_joins",
    "read_journal_entry",
    "read_payload",
    "read_result",
    "run_again",
)
