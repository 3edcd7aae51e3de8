"""Rate limiting: five algorithms, homes in this process and on a Redis server, one decision.

    limiter = RateLimiter(GCRA(Limit.per_minute(100, burst=20)))
    decision = limiter.hit("customer 7")
    decision.allowed, decision.remaining, decision.retry_after, decision.reset

Algorithms know no store and stores no algorithm: `FixedWindow`, `SlidingLog`, `SlidingCounter`,
`TokenBucket` and `GCRA` decide, `MemoryStore`, `RedisStore` and `AsyncRedisStore` remember.
"""

from companion.resilience.limiting.algorithm import Algorithm
from companion.resilience.limiting.buckets import GCRA, TokenBucket
from companion.resilience.limiting.decisions import Decision, InvalidCostError, Limit
from companion.resilience.limiting.limiter import AsyncStore, RateLimiter, Store
from companion.resilience.limiting.memory import MemoryStore
from companion.resilience.limiting.redis_async_store import AsyncRedisStore
from companion.resilience.limiting.redis_store import RedisStore
from companion.resilience.limiting.windows import FixedWindow, SlidingCounter, SlidingLog

__all__ = [
    "GCRA",
    "Algorithm",
    "AsyncRedisStore",
    "AsyncStore",
    "Decision",
    "FixedWindow",
    "InvalidCostError",
    "Limit",
    "MemoryStore",
    "RateLimiter",
    "RedisStore",
    "SlidingCounter",
    "SlidingLog",
    "Store",
    "TokenBucket",
]
