"""How much a received body may ask of this process."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ("DEFAULT_LIMITS", "Limits")

_MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds that are checked before or while a body is decoded.

    Attributes:
        max_message_bytes: the body as received, compressed or not.
        max_decompressed_bytes: the body after decompression.
        max_compression_ratio: decompressed over compressed size; looked at once the output exceeds one MiB, as
            small bodies of repetitive text compress further than any large honest one.
        max_depth: arrays and objects inside each other.
        max_int_digits: decimal digits of one integer (converting more takes quadratic time).
    """

    max_message_bytes: int = 16 * _MIB
    max_decompressed_bytes: int = 64 * _MIB
    max_compression_ratio: int = 200
    max_depth: int = 256
    max_int_digits: int = 4300

    def __post_init__(self) -> None:
        """Check the bounds.

        Raises:
            ValueError: a limit below one.
        """
        for name in self.__slots__:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


DEFAULT_LIMITS = Limits()
