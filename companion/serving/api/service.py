"""What an application is made of: every part that it needs, made elsewhere and handed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from companion.resilience.health import HealthRegistry
from companion.resilience.limiting import AsyncStore, Limit, MemoryStore
from companion.serving.guards import MEBIBYTE, Limits
from companion.serving.jobs import Job, Jobs
from companion.serving.keys import KeyRing
from companion.serving.proxies import TrustedProxies
from companion.serving.scorer import Scorer
from companion.serving.tracing import AccessLines
from companion.serving.tracing.telemetry import OFF, Telemetry


@dataclass(frozen=True)
class Deprecation:
    """When the first version was deprecated and when it stops answering; the dates know zones."""

    deprecated_at: datetime = datetime(2026, 6, 1, tzinfo=UTC)
    sunset_at: datetime = datetime(2027, 6, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Service:
    """The parts of one application.

    Args:
        scorer: answers; the application loads its model and enters its batcher.
        keys: who may ask; `None`: everybody.
        limit: what each client may usually ask; `None`: as much as it likes.
        limit_store: where limits are counted; `None`: in this process.
        proxies: whose `X-Forwarded-For` is believed; `None`: nobody's.
        limits: sizes and times of a request; `upload_limits` those of an uploaded file.
        jobs: batches; `None`: there are none, and no routes for them.
        on_accepted: told of each new job once it is stored, as to wake an executor up.
        background: rows × `FEATURES` that explanations compare with; `None`: no explanations.
        on_loaded: called once all is loaded, what is loaded beside the first requests too.
        health: `None` for one critical check, that there is a model.
        traces: see `companion.serving.tracing`.
        access: writes a line for each request, while the application runs; `None`: nobody does.
        v1: the dates of the first version's end.
        clock: the time now, with its zone.
    """

    scorer: Scorer
    keys: KeyRing | None = None
    limit: Limit | None = None
    limit_store: MemoryStore | AsyncStore | None = None
    proxies: TrustedProxies | None = None
    limits: Limits = field(default_factory=Limits)
    upload_limits: Limits = field(
        default_factory=lambda: Limits(body=1024 * MEBIBYTE, seconds=600.0)
    )
    jobs: Jobs | None = None
    on_accepted: Callable[[Job], None] = lambda job: None
    background: NDArray[np.float64] | None = None
    on_loaded: Callable[[], None] = lambda: None
    health: HealthRegistry | None = None
    traces: Telemetry = OFF
    access: AccessLines | None = None
    v1: Deprecation = Deprecation()
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
