"""Which column of a model's output is fraud: asked of the model, never assumed to be the second.

`classes_` is sorted, so "fraud" stands before "ok", and 1 after 0. Whoever takes column 1 in both
cases explains the legitimate class in one of them, with every sign turned round.
"""

from typing import Any

import numpy as np

from companion.models.explanations.errors import FraudClassError

_FRAUD = {"1", "true", "yes", "fraud", "fraudulent", "is_fraud", "bad", "positive"}
_LEGITIMATE = {
    "0",
    "-1",
    "false",
    "no",
    "legit",
    "legitimate",
    "genuine",
    "ok",
    "good",
    "normal",
    "negative",
    "not fraud",
    "not_fraud",
    "non-fraud",
    "no fraud",
}


def fraud_column(model: Any, fraud: object = None) -> int:
    """The column of `model.predict_proba` that is fraud.

    A label of its `classes_` that says fraud (1, True, "fraud", "Fraudulent" …), or the other one
    of two where one says legitimate (0, -1, "ok" …). `fraud` names the label where neither does.

    Raises `FraudClassError` where that leaves a doubt, for a model that knows no fraud, and for one
    without `classes_`.
    """
    classes = _classes(model)
    if fraud is not None:
        if fraud not in classes:
            raise FraudClassError(classes, f"there is no class {fraud!r}")
        return classes.index(fraud)
    said = [_normal(label) in _FRAUD for label in classes]
    if sum(said) == 1:
        return said.index(True)
    legitimate = [_normal(label) in _LEGITIMATE for label in classes]
    if sum(said) == 0 and len(classes) == 2 and sum(legitimate) == 1:
        return legitimate.index(False)
    if len(classes) == 1:
        raise FraudClassError(classes, "the model has seen one class only and knows no fraud")
    raise FraudClassError(classes, "which class is fraud cannot be told: pass fraud=label")


def _classes(model: Any) -> list[object]:
    found = getattr(model, "classes_", None)
    if found is None:
        raise FraudClassError((), "the model has no classes_; has it been fitted?")
    return list(np.asarray(found).tolist())


def _normal(label: object) -> str:
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    return str(label).strip().casefold()
