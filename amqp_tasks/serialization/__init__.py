"""Values to message bodies and back, within limits; no I/O.

Importing it loads neither kombu nor any codec beyond the standard library's.
"""

from amqp_tasks.serialization._codecs import JSON_TYPE, content_type_of, content_types, dumps, loads
from amqp_tasks.serialization._compression import compress, compression_type, decompress
from amqp_tasks.serialization._limits import DEFAULT_LIMITS, Limits

__all__ = (
    "DEFAULT_LIMITS",
    "JSON_TYPE",
    "Limits",
    "compress",
    "compression_type",
    "content_type_of",
    "content_types",
    "decompress",
    "dumps",
    "loads",
)
