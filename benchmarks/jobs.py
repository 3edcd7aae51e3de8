"""How fast a batch job is scored on one core, from the file on the disk to stored results.

Everything counts: claim, reading and checking Parquet, the features of the whole file, the model,
and a synced transaction for each piece. One thread; time is that of this process's core, so that
neighbours do not count, with the wall beside it. Ratios are to the target.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

from threadpoolctl import threadpool_limits

from companion.features import FEATURES, feature_table
from companion.instruments.benchmark import Row
from companion.models.families import make_boosting, make_forest
from companion.models.onnx.export import export_onnx
from companion.models.onnx.model import OnnxModel
from companion.serving.jobs import Jobs, Worker, open_jobs
from companion.serving.jobs.checking import KNOWN
from companion.serving.jobs.model_scorer import ModelScorer
from companion.serving.jobs.reading import read_batch
from companion.transactions import simulate

TITLE = "Batch jobs on one core"

_ROWS = 500_000
_TRAINING_ROWS = 20_000
_ROUNDS = 3
_BAD_ROWS = 1_000_000
_TARGET = 100_000


def run() -> list[Row]:
    table = simulate(_ROWS, seed=1).drop(columns=["is_fraud", "scenario"])
    train = simulate(_TRAINING_ROWS, seed=2)
    X = feature_table(train, FEATURES)
    rows = []
    with tempfile.TemporaryDirectory(prefix="jobs-") as folder, threadpool_limits(1):
        files = [Path(folder, name) for name in ("batch.parquet", "batch.csv")]
        table.to_parquet(files[0], index=False)
        table.to_csv(files[1], index=False)
        jobs = open_jobs(f"sqlite:///{folder}/jobs.db")
        for name, make in (("boosting", make_boosting), ("forest", make_forest)):
            model = make(seed=1).fit(X, train["is_fraud"])
            scorer = ModelScorer(OnnxModel(export_onnx(model, X.head(1000))), name)
            for file in files:
                rows += _scored(jobs, scorer, file, name)
        rows.append(_bad_rows(Path(folder, "bad.csv")))
    return rows


def _bad_rows(file: Path) -> Row:
    """What a file of nothing but bad rows takes of the memory of a fresh process."""
    file.write_bytes(f"{','.join(KNOWN)}\n".encode() + b"1,2\n" * _BAD_ROWS)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        megabytes = pool.apply(_growth, (file,))
    return Row(f"{_BAD_ROWS:,} bad rows of csv", "memory that reading takes", megabytes, "MB")


def _growth(file: Path) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert len(read_batch(file, "csv", max_rows=_BAD_ROWS).bad) == _BAD_ROWS
    return (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024


def _scored(jobs: Jobs, scorer: ModelScorer, file: Path, model: str) -> list[Row]:
    """Rows a second by the core and by the wall, of the median round."""
    times = []
    for _ in range(_ROUNDS):
        job = jobs.submit(file)
        wall, core = time.perf_counter(), time.process_time()
        Worker(jobs, scorer.score, features=scorer.features).run_one()
        times.append((time.process_time() - core, time.perf_counter() - wall))
        assert jobs.get(job.id).scored == _ROWS
    core, wall = sorted(times)[_ROUNDS // 2]
    what = f"{_ROWS:,} rows of {file.suffix[1:]}"
    target = f"at least {_TARGET:,}" if (file.suffix, model) == (".parquet", "boosting") else ""
    return [
        Row(what, f"{model}, by the core", _ROWS / core, "rows/s", _ROWS / core / _TARGET, target),
        Row(what, f"{model}, by the wall", _ROWS / wall, "rows/s", _ROWS / wall / _TARGET),
    ]
