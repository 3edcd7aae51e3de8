"""The classroom: questions, verdicts, checks, hints and recall, and what runs the notebooks.

A notebook needs `question`, `found`, `unmeasured` and `not_here`; an answer file needs `Exercise`,
`Stage` and `Limits`. The classroom knows none of the companion's rooms, and none of them knows it.

The names are imported when they are asked for (PEP 562): every Jupyter process passes through this
package to start a kernel, and needs none of them.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from companion.study.exercise import Exercise, Stage
    from companion.study.questions import question
    from companion.study.sandbox import Limits
    from companion.study.verdicts import found, not_here, unmeasured

_HOMES = {
    "Exercise": "exercise",
    "Limits": "sandbox",
    "Stage": "exercise",
    "found": "verdicts",
    "not_here": "verdicts",
    "question": "questions",
    "unmeasured": "verdicts",
}

__all__ = ["Exercise", "Limits", "Stage", "found", "not_here", "question", "unmeasured"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
