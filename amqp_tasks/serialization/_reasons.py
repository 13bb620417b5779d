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
    UNSERIALIZABLE_RESULT = "unserializable-result"
    """The task ran, and its return value cannot be written by the result serializer."""
    REJECTED = "rejected"
    """The task raised `Reject`."""
    FAILED = "failed"
    """The task raised, and nobody gets its result."""
