"""The named ways in which a row can fail to get its prediction, besides the model's own errors."""


class QueueFullError(Exception):
    """As many rows wait as may; `retry_after` says in how many seconds there may be room."""

    def __init__(self, waiting: int, retry_after: float) -> None:
        super().__init__(f"{waiting} rows wait already; try again in {retry_after:.3g} s")
        self.waiting = waiting
        self.retry_after = retry_after


class BatcherClosedError(Exception):
    """The batcher has not been entered, or takes no rows any more."""


class BatchResultError(Exception):
    """The model answered `expected` rows with another number of results (`got`; None: with none).

    Nobody can say whose result is whose then, so every row of the batch gets this error.
    """

    def __init__(self, expected: int, got: int | None) -> None:
        answer = "something without a length" if got is None else f"{got} results"
        super().__init__(f"the model answered {expected} rows with {answer}")
        self.expected = expected
        self.got = got


class PredictorExitError(Exception):
    """The model raised what must not be raised in a caller: `SystemExit`, `StopIteration`…

    The first would end the event loop instead of a request, the second ends loops by design.
    """

    def __init__(self, cause: BaseException) -> None:
        super().__init__(f"the model raised {cause!r}")
        self.__cause__ = cause
