"""Kinds of values that variables may have, where a number or a word is not enough."""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from asr.registry import ENGINES

MOST_CALLS = 1_000_000
PERIODS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}


def _rate(text: Any) -> tuple[int, int]:
    """120/minute as 120 in 60 seconds."""
    number, _, period = (part.strip() for part in str(text).partition("/"))
    seconds = PERIODS.get(period)
    calls = int(number) if re.fullmatch(r"\d{1,7}", number, re.ASCII) else 0
    if seconds is None or not 1 <= calls <= MOST_CALLS:
        *others, last = PERIODS
        raise ValueError(
            f"a rate is 1 to {MOST_CALLS} calls in a {', '.join(others)} or {last}, such as"
            " 120/minute; leave it empty to limit nobody"
        )
    return calls, seconds


def _prices(text: Any) -> dict[str, float]:
    """deepgram=0.0043,openai=0.006 by engine."""
    prices = {}
    for item in filter(None, (item.strip() for item in str(text).split(","))):
        name, _, price = (part.strip() for part in item.partition("="))
        if name not in ENGINES or not re.fullmatch(r"\d{1,4}(\.\d{1,6})?", price, re.ASCII):
            raise ValueError(
                f"{item!r} is not one of {', '.join(ENGINES)} and its price: name=0.006"
            )
        prices[name] = float(price)
    return prices


def _in_cents(dollars: Decimal) -> Decimal:
    if dollars != round(dollars, 2):
        raise ValueError("not a sum in dollars and cents")
    return dollars


Rate = Annotated[tuple[int, int], BeforeValidator(_rate)]
"""How many calls in how many seconds."""
Prices = Annotated[dict[str, float], BeforeValidator(_prices)]
"""US dollars for a minute of sound, by engine."""
Dollars = Annotated[Decimal, Field(ge=0, le=10**9), AfterValidator(_in_cents)]
