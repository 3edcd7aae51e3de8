"""A forest inside Triton's Python backend, for `benchmarks/triton.py`.

It is fitted where it runs, on the rows beside it: no pickle has to cross from one NumPy to another.
"""

from pathlib import Path

import numpy as np
from sklearn.ensemble import RandomForestClassifier


def load(folder: Path):
    """A function from rows × features to [probabilities], rows × 2."""
    with np.load(folder / "rows.npz") as rows:
        forest = RandomForestClassifier(100, max_depth=10, random_state=0).fit(rows["X"], rows["y"])
    return lambda rows: [forest.predict_proba(rows)]
