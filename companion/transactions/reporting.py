"""When a fraud becomes known: chargebacks come days to weeks later, and some never.

A model that learns on Monday does not know what happened on Sunday. The delay is lognormal with a
median of 10 days; a third of the reports arrive within a week, eight in nine within 30 days, and
none after 120 days, the longest that card networks allow for a dispute. `NEVER_REPORTED` of all
frauds are never noticed and stay labelled legitimate for ever.

On what late labels do to learning: Dal Pozzolo, Boracchi, Caelen, Alippi and Bontempi, *Credit
Card Fraud Detection: A Realistic Modeling and a Novel Learning Strategy*, IEEE TNNLS 29(8), 2018.
"""

from datetime import datetime

import numpy as np
import pandas as pd
from numpy.random import Generator

from companion.transactions.events import DAY, Bools, Floats
from companion.transactions.schema import LABEL, require_columns

MEDIAN_DELAY_DAYS = 10.0
DELAY_SPREAD = 0.9  # standard deviation of the log delay
LONGEST_DELAY_DAYS = 120.0
NEVER_REPORTED = 0.08


class NaiveTimeError(ValueError):
    """The argument `parameter` has no time zone, so it names no instant: `value`."""

    def __init__(self, parameter: str, value: object) -> None:
        super().__init__(f"{parameter} needs a time zone, for example UTC; got {value!r}")
        self.parameter = parameter
        self.value = value


def report_delay(count: int, rng: Generator) -> Floats:
    """Minutes from each of `count` frauds to its report; NaN for those never reported."""
    drawn = np.exp(rng.normal(np.log(MEDIAN_DELAY_DAYS), DELAY_SPREAD, size=count))
    delay = np.minimum(drawn, LONGEST_DELAY_DAYS) * DAY
    reported: Floats = np.where(rng.random(count) < NEVER_REPORTED, np.nan, delay)
    return reported


def known_fraud(transactions: pd.DataFrame, now: datetime) -> Bools:
    """Rows whose fraud has been reported by `now`, an instant with a time zone.

    What a model may learn from at that instant: everything else counts as legitimate so far.
    Raises `MissingColumnsError` without `is_fraud` or `label_time`, `NaiveTimeError` for a `now`
    without time zone.
    """
    require_columns(transactions, (LABEL, "label_time"))
    if now.tzinfo is None:
        raise NaiveTimeError("now", now)
    reported: Bools = transactions["label_time"].le(pd.Timestamp(now)).to_numpy(dtype=bool)
    fraud: Bools = transactions[LABEL].to_numpy(dtype=bool)
    return reported & fraud
