"""The libraries that are really preloaded work in a fork, thread pools and all."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import KernelManager

from companion.study.kernels import spec
from companion.study.kernels.process import ForkedKernel

LIMIT_S = 120

AT_ONCE = """
import sys
names = ("torch", "sklearn.ensemble", "skorch", "optuna", "shap", "mlflow", "fastapi", "pandas")
assert not set(names) - set(sys.modules), set(names) - set(sys.modules)
assert not [name for name in sys.modules if name.partition(".")[0] == "companion"]
from comm import get_comm_manager
assert {"jupyter.widget", "jupyter.widget.control"} <= set(get_comm_manager().targets)
from tqdm.auto import tqdm
assert tqdm.__mro__[1].__name__ == "tqdm_notebook"
print("all there")
"""

POOLS = """
import io, numpy as np, pandas as pd, torch
from sklearn.datasets import make_classification
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier

a = np.random.default_rng(0).random((600, 600))
assert np.allclose((a @ a)[0, 0], a[0] @ a[:, 0])                       # OpenBLAS
t = torch.rand(600, 600, requires_grad=True)
(t @ t).sum().backward()                                                # OpenMP, autograd's threads
X, y = make_classification(2000, random_state=0)
RandomForestClassifier(20, n_jobs=2).fit(X, y)                          # joblib
HistGradientBoostingClassifier(max_iter=5).fit(X, y)                    # OpenMP
loader = torch.utils.data.DataLoader(torch.arange(8), num_workers=2)    # worker processes
assert sum(int(batch) for batch in loader) == 28
file = io.BytesIO()
pd.DataFrame(X).to_parquet(file)                                        # Arrow's pool
assert pd.read_parquet(file).shape == X.shape
print("all done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this platform")
def test_the_preloaded_libraries_are_there_at_once_and_their_thread_pools_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("COMPANION_WARM", "COMPANION_WARM_LIBRARIES", "MPLBACKEND"):
        monkeypatch.delenv(name, raising=False)
    spec.install_kernelspec(tmp_path)
    specs = KernelSpecManager(kernel_dirs=[str(tmp_path / "share" / "jupyter" / "kernels")])
    manager = KernelManager(kernel_name="python3", kernel_spec_manager=specs)
    manager.start_kernel()
    client = manager.client()
    client.start_channels()
    said: list[str] = []
    try:
        client.wait_for_ready(timeout=LIMIT_S)
        assert manager.provisioner is not None
        assert isinstance(manager.provisioner.process, ForkedKernel)  # type: ignore[attr-defined]
        for code in (AT_ONCE, POOLS):
            client.execute_interactive(
                code,
                timeout=LIMIT_S,
                output_hook=lambda message: said.append(
                    message["content"].get("text")
                    or "".join(message["content"].get("traceback", ()))
                ),
            )
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert "".join(said).split("\n")[:2] == ["all there", "all done"]
