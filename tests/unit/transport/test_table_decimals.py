"""Decimals of header tables are exact, whatever the thread that writes or reads them computes with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from decimal import Context, Decimal, localcontext

import pytest

from amqp_tasks.errors import EncodeError
from amqp_tasks.message._headers import is_table_value
from amqp_tasks.transport.rabbitmq._codec import decode_table, encode_table_items

ENDS = [
    "2147483647",
    "-2147483648",
    "21474836.47",
    "-0.000123456789",
    "1E-255",
    "1E+9",
    "0E-300",
    "1.5000000000000000000",
]
BEYOND = [
    "2147483648",
    "-2147483649",
    "21474836.481",
    "1E-256",
    "1E+10",
    "1E+999999999",
    "1.0000000001",
    "NaN",
    "sNaN",
    "Infinity",
]


@contextmanager
def coarse() -> Generator[None]:
    context = Context(prec=3, Emin=-5, Emax=5)
    context.traps = dict.fromkeys(context.traps, True)
    with localcontext(context):
        yield


@pytest.mark.parametrize("text", ENDS)
def test_a_decimal_arrives_as_it_was_sent(text: str) -> None:
    amount = Decimal(text)
    written = encode_table_items({"amount": amount})

    with coarse():
        assert is_table_value(amount)
        assert encode_table_items({"amount": amount}) == written
        arrived = decode_table(written)["amount"]

    assert arrived == amount


@pytest.mark.parametrize("text", BEYOND)
def test_a_decimal_that_does_not_fit_is_refused_and_never_rounded(text: str) -> None:
    amount = Decimal(text)

    with coarse():
        assert not is_table_value(amount)
        with pytest.raises(EncodeError, match="does not fit an AMQP decimal; send it as a string"):
            encode_table_items({"amount": amount})


def test_a_program_that_changes_the_default_of_all_threads_changes_no_amount() -> None:
    code = (
        "import decimal; decimal.DefaultContext.prec = 2; decimal.DefaultContext.Emax = 3\n"
        "decimal.DefaultContext.traps[decimal.Inexact] = True; decimal.setcontext(decimal.DefaultContext)\n"
        "from amqp_tasks.transport.rabbitmq._codec import decode_table, encode_table_items\n"
        "print(decode_table(encode_table_items({'amount': decimal.Decimal('1234567.89')}))['amount'])"
    )

    shown = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=20
    )

    assert shown.stdout == "1234567.89\n"
