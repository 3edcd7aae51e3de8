"""What stands between a service and its backends: the circuit breaker."""

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
