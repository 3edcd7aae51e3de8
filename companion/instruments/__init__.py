"""What an experiment needs: clocks, randomness, load, lag, servers, benchmarks, plots.

Importing this room is cheap.  Plots pull in matplotlib, so they are asked for by name:
``from companion.instruments import plots``.
"""

from companion.instruments.benchmark import Row, side_by_side
from companion.instruments.clocks import FakeClock
from companion.instruments.http_caller import HttpCaller, HttpStatusError
from companion.instruments.load import (
    LoadResult,
    aclosed_loop,
    aopen_loop,
    closed_loop,
    open_loop,
    poisson_arrivals,
    steady_arrivals,
)
from companion.instruments.loop_lag import LoopLag
from companion.instruments.percentiles import percentile
from companion.instruments.randomness import stream, streams
from companion.instruments.server import ServerNotReadyError, SubprocessServer, free_port

__all__ = [
    "FakeClock",
    "HttpCaller",
    "HttpStatusError",
    "LoadResult",
    "LoopLag",
    "Row",
    "ServerNotReadyError",
    "SubprocessServer",
    "aclosed_loop",
    "aopen_loop",
    "closed_loop",
    "free_port",
    "open_loop",
    "percentile",
    "poisson_arrivals",
    "side_by_side",
    "steady_arrivals",
    "stream",
    "streams",
]
