"""Micro-batching: rows that arrive one by one are predicted together, each caller gets its own.

Many models cost nearly the same for sixty-four rows as for one; a forest in scikit-learn is the
extreme case. `MicroBatcher` shares that cost between the requests of one process. The idea is that
of *adaptive batching* in Clipper (Crankshaw and others, NSDI 2017) and of the dynamic batcher in
NVIDIA's Triton.

Three parts: `gathering` says when rows leave, `answering` asks the model (and finds the row that
it chokes on), `batcher` stands between the event loop and the one thread that predicts. `Cohort` is
for models so fast that a thread would cost more than they do.
"""

from companion.serving.batching.answering import ROW_ERRORS
from companion.serving.batching.batcher import BatcherStats, MicroBatcher
from companion.serving.batching.cohort import Cohort
from companion.serving.batching.errors import (
    BatcherClosedError,
    BatchResultError,
    PredictorExitError,
    QueueFullError,
)
from companion.serving.batching.gathering import Gathering

__all__ = [
    "ROW_ERRORS",
    "BatchResultError",
    "BatcherClosedError",
    "BatcherStats",
    "Cohort",
    "Gathering",
    "MicroBatcher",
    "PredictorExitError",
    "QueueFullError",
]
