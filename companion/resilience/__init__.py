"""What stands between a service and what it depends on, or is asked for too often.

The circuit breaker is here; its neighbours are imported by their own names, since some need a
database's or a server's library: `limiting` (rate limits), `cache` (predictions), `pool` (database
connections), `health` (what probes ask).
"""

from companion.resilience.breaker import CircuitBreaker
from companion.resilience.outcomes import CircuitOpenError, Snapshot, Transition
from companion.resilience.phases import State
from companion.resilience.window import CallWindow, TimeWindow

__all__ = [
    "CallWindow",
    "CircuitBreaker",
    "CircuitOpenError",
    "Snapshot",
    "State",
    "TimeWindow",
    "Transition",
]
