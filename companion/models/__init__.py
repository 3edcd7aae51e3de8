"""Models of fraud: trained, judged, tuned, explained, and kept as one file that can be served.

| where | what |
|---|---|
| `families`, `network`, `labels` | a forest, boosted trees, a network; their labels |
| `splits` | training and test divided by time, with the label delay left out |
| `metrics`, `intervals`, `alerts`, `calibration`, `costs` | how good, how sure, at which budget |
| `imbalance` | weights and resampling inside the model, probabilities mended |
| `tuning` | searching hyperparameters, alone or with many workers |
| `explanations` | what each feature contributed, in numbers, pictures and words |
| `onnx`, `artefacts` | one proven file, kept with where it comes from |
| `scoring` | the whole path for somebody's own file |

Import from these modules; the names below are the network's, which the room began with. They are
looked up when they are used (PEP 562), so that a service that loads an ONNX file does not wait for
PyTorch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from companion.models.labels import LabelError, as_labels
    from companion.models.network import FraudMLP, FraudNet, make_net, single_threaded

__all__ = ["FraudMLP", "FraudNet", "LabelError", "as_labels", "make_net", "single_threaded"]

_HOMES = {"LabelError": "labels", "as_labels": "labels"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES.get(name, 'network')}"), name)
