"""Decimals of an AMQP field table: 32 bits with up to 255 places, whatever a thread's decimal context says."""

from __future__ import annotations

from decimal import MAX_EMAX, MIN_EMIN, ROUND_HALF_EVEN, Context, Decimal, Inexact, InvalidOperation

__all__ = ("decimal_from_table", "table_decimal")

MAX_PLACES = 255
MAX_DIGITS = 10

# All is given, as a Context takes what is not from `decimal.DefaultContext`, which programs change.
_EXACT = Context(
    prec=MAX_DIGITS, rounding=ROUND_HALF_EVEN, Emin=MIN_EMIN, Emax=MAX_EMAX,
    capitals=1, clamp=0, flags=[], traps=[Inexact, InvalidOperation],
)  # fmt: skip


def table_decimal(value: Decimal) -> tuple[int, int] | None:
    """How a field table writes a decimal: its places, as few as will do, and its digits; None where it cannot."""
    if not value.is_finite():
        return None
    try:
        plain = value.normalize(_EXACT)
    except Inexact:
        return None
    exponent = plain.as_tuple().exponent
    assert isinstance(exponent, int)
    # The range first: a far exponent would make a number of as many digits.
    if not -MAX_PLACES <= exponent < MAX_DIGITS:
        return None
    places = max(0, -exponent)
    digits = int(plain.scaleb(places, _EXACT))
    return (places, digits) if -(2**31) <= digits < 2**31 else None


def decimal_from_table(places: int, digits: int) -> Decimal:
    """The decimal that a field table means."""
    return Decimal(digits).scaleb(-places, _EXACT)
