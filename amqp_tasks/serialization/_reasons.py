"""Why a message was set aside, as short stable words."""

from __future__ import annotations

from enum import StrEnum

__all__ = ("DeadLetterReason",)


# Public as `amqp_tasks.message.DeadLetterReason`; it lies here because decoding is the lowest layer that names one.
class DeadLetterReason(StrEnum):
    """What `x-error-reason` says and `MalformedMessage.reason` carries. Words are never changed, only added."""

    MISSING_HEADER = "missing-header"
    """No `task` or `id` header; also every message of task protocol 1."""
    BAD_HEADERS = "bad-headers"
    """A header or property of the wrong type, too long, or not decodable."""
    BAD_JSON = "bad-json"
    """The body is not what its content type says: JSON, MessagePack or YAML that does not parse."""
    BAD_ENCODING = "bad-encoding"
    """The body is not UTF-8."""
    CONTENT_TYPE_REFUSED = "content-type-refused"
    """The content type is not in `accept_content`."""
    TOO_LARGE = "too-large"
    """The body exceeds `max_message_bytes`."""
    TOO_DEEP = "too-deep"
    """The body is nested deeper than `Limits.max_depth`."""
    DECOMPRESS_BOMB = "decompress-bomb"
    """The body decompresses to more than the limits allow."""
    BAD_COMPRESSION = "bad-compression"
    """An unknown compression method, or a stream that is broken, cut or followed by something."""
    BAD_BODY = "bad-body"
    """A readable body of another shape than `[args, kwargs, embed]` or a result object."""
    UNSIGNED = "unsigned"
    """It has no signature, and `security_require_signatures` is on."""
    BAD_SIGNATURE = "bad-signature"
    """Its signature does not fit, or is by no key of `security_signing_keys`."""
    UNKNOWN_TASK = "unknown-task"
    """No task of that name is registered."""
    INVALID_ARGUMENTS = "invalid-arguments"
    """The arguments do not fit the task's signature or annotations."""
    EXPIRED = "expired"
    """It was not started before its `expires`."""
    REVOKED = "revoked"
    """It was revoked before it was started."""
    CRASH_LIMIT = "crash-limit"
    """Its worker process died `task_crash_limit` times while running it."""
    CHORD_REFUSED = "chord-refused"
    """A member of a chord that is counted in a result store, as stock Celery does; there is none here."""
    REJECTED = "rejected"
    """The task raised `Reject`."""
    REQUEUE_LIMIT = "requeue-limit"
    """The task raised `Reject(requeue=True)` more often than `task_requeue_limit`."""
    STEP_LOST = "step-lost"
    """The watch of a join of named steps: nothing has come of one that it waits for."""
    NOT_SENT = "not-sent"
    """A callback, an errback or a step of a workflow that could not be sent when its turn had come."""
    FAILED = "failed"
    """The task raised, and nobody gets its result."""
