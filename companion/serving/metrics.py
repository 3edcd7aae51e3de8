"""What the service tells Prometheus: requests, how long they took, what was decided and on what.

A scrape comes every fifteen seconds, a request every hundred microseconds. So requests only add to
plain numbers, at a tenth of what a labelled counter of `prometheus_client` costs with its lock, and
a scrape turns them into that library's metrics (a custom collector). Only the event loop writes
them, and a scrape on it sees all of one moment.

Labels are few and closed: a route's template and never its path, a status, an action. What a client
can choose freely would let it fill the memory of the service and of Prometheus.

With several workers each has numbers of its own, and a scrape reaches one of them.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from companion.serving.schemas import Score

BUCKETS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
"""Upper ends in seconds: half a millisecond is an idle machine, 50 ms is what was promised."""

UNMATCHED = "(none)"
"""The route of a request for which there is none."""

CONTENT_TYPE = CONTENT_TYPE_LATEST


class ServiceMetrics:
    """The numbers of one application; `queue` says how many rows wait for the model now."""

    def __init__(self, *, queue: Callable[[], int] | None = None) -> None:
        self._queue = queue
        self._requests: Counter[tuple[str, int]] = Counter()
        self._seconds: dict[str, list[float]] = {}
        self._scores: Counter[tuple[str, str, bool]] = Counter()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(self)

    def request(self, route: str, status: int, seconds: float) -> None:
        """A request to the template `route` was answered with `status` after `seconds`."""
        self._requests[route, status] += 1
        counts = self._seconds.get(route)
        if counts is None:
            # A count for each bucket and one beyond, then the sum.
            counts = self._seconds[route] = [0.0] * (len(BUCKETS) + 2)
        counts[bisect_left(BUCKETS, seconds)] += 1
        counts[-1] += seconds

    def scored(self, score: Score) -> None:
        """A score was given."""
        self._scores[score.decision, score.source, score.degraded] += 1

    def text(self) -> bytes:
        """All of it in Prometheus' text format, of the type `CONTENT_TYPE`."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """For `prometheus_client`: the families of metrics, as of now."""
        requests = CounterMetricFamily(
            "fraud_http_requests", "Requests answered.", labels=("route", "status")
        )
        for (route, status), count in self._requests.items():
            requests.add_metric((route, str(status)), count)
        yield requests
        yield self._latency()
        scores = CounterMetricFamily(
            "fraud_scores", "Scores given.", labels=("decision", "source", "degraded")
        )
        for (decision, source, degraded), count in self._scores.items():
            scores.add_metric((decision, source, str(degraded).lower()), count)
        yield scores
        if self._queue is not None:
            yield GaugeMetricFamily(
                "fraud_queue_rows", "Rows that wait for the model.", value=self._queue()
            )

    def _latency(self) -> Metric:
        family = HistogramMetricFamily(
            "fraud_http_request_seconds", "From the first header to the answer.", labels=("route",)
        )
        ends = [*map(str, BUCKETS), "+Inf"]
        for route, (*counts, total) in self._seconds.items():
            upto, below = [], 0.0
            for end, count in zip(ends, counts, strict=True):
                below += count
                upto.append((end, below))
            family.add_metric((route,), buckets=upto, sum_value=total)
        return family


class Measured:
    """ASGI middleware: counts every request of `app` under its route's template.

    A request that nobody answers, since its client left or the application failed before it began
    to, counts as 500.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: ServiceMetrics,
        *,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self.app = app
        self._metrics = metrics
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        begun, status = self._clock(), 500

        def watched(message: Message) -> Awaitable[None]:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            return send(message)

        try:
            await self.app(scope, receive, watched)
        finally:
            self._metrics.request(_template(scope), status, self._clock() - begun)


def _template(scope: Scope) -> str:
    # The router leaves the route that it chose in the scope; its path has names, not values.
    return getattr(scope.get("route"), "path", None) or UNMATCHED
