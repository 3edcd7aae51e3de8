"""The classroom: questions, verdicts, checks, hints and recall, and what runs the notebooks.

A notebook needs `question`, `found`, `unmeasured` and `not_here`; an answer file needs `Exercise`,
`Stage` and `Limits`. The classroom knows none of the companion's rooms, and none of them knows it.
"""

from companion.study.exercise import Exercise, Stage
from companion.study.question import question
from companion.study.sandbox import Limits
from companion.study.verdicts import found, not_here, unmeasured

__all__ = ["Exercise", "Limits", "Stage", "found", "not_here", "question", "unmeasured"]
