"""Independent random streams from one seed, each with a name.

The idea: every source of chance in an experiment (arrivals, amounts, failures …) draws from a
stream of its own, so that adding a source, or drawing more from one, changes nothing elsewhere;
two runs that share a stream can then be compared draw by draw (*common random numbers*, Law,
*Simulation Modeling and Analysis*, ch. 11).  A stream is keyed by its name rather than by its
position; NumPy's ``SeedSequence`` (after O'Neill's ``seed_seq`` design) mixes seed and key so
that neighbouring seeds do not give similar streams.
"""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """The generator that belongs to ``name`` under ``seed``: same arguments, same draws.

    Raises:
        ValueError: a negative seed or an empty name.
        TypeError: a seed that is no whole number.
    """
    if not name:
        raise ValueError("a random stream needs a name")
    digest = hashlib.sha256(name.encode()).digest()
    key = tuple(int.from_bytes(digest[i : i + 4], "little") for i in range(0, 16, 4))
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=key))


def streams(seed: int, *names: str) -> dict[str, np.random.Generator]:
    """One generator per name; ``streams(7, "a", "b")["b"]`` draws as ``stream(7, "b")`` does.

    Raises:
        ValueError: a name given twice, which would make two "independent" sources one.
    """
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(f"each stream needs a name of its own, repeated: {', '.join(repeated)}")
    return {name: stream(seed, name) for name in names}
