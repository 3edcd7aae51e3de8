"""Models of fraud: a neural network that scikit-learn can train, tune and store.

`make_net` gives the whole pipeline, `FraudMLP` the module inside; `as_labels` is what every model
here takes labels through. Importing this room imports PyTorch.
"""

from companion.models.labels import LabelError, as_labels
from companion.models.network import FraudMLP, FraudNet, make_net, single_threaded

__all__ = ["FraudMLP", "FraudNet", "LabelError", "as_labels", "make_net", "single_threaded"]
