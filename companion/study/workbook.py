"""Where the parts of the workbook lie on disk.

Everything in the classroom starts from one `Workbook`, so that tests can build a small one in a
temporary folder and nothing depends on the current directory.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

STEM = re.compile(r"q(?P<number>\d{2})_(?P<slug>[a-z0-9]+(?:_[a-z0-9]+)*)")


class WorkbookNotFoundError(FileNotFoundError):
    """There is no workbook here: no folder with `notebooks/` and `answers/` in it."""


@dataclass(frozen=True)
class Workbook:
    """The folder that holds `notebooks/`, `answers/` and the rest."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> Workbook:
        """The workbook around `start` (default: this package's own checkout).

        Raises:
            WorkbookNotFoundError: no folder from `start` upwards has notebooks and answers.
        """
        origin = (start or Path(__file__)).resolve()
        for folder in (origin, *origin.parents):
            if (folder / "notebooks").is_dir() and (folder / "answers").is_dir():
                return cls(folder)
        raise WorkbookNotFoundError(
            f"no workbook from {origin} upwards: it is the folder with notebooks/ and answers/"
        )

    @property
    def notebooks(self) -> Path:
        return self.root / "notebooks"

    @property
    def answers(self) -> Path:
        return self.root / "answers"

    @property
    def unwritten(self) -> Path:
        """The list of the questions that have no answer file yet."""
        return self.answers / "unwritten.yaml"

    @property
    def start_here(self) -> Path:
        return self.notebooks / "00_start_here.ipynb"

    def notebook(self, stem: str) -> Path:
        return self.notebooks / f"{stem}.ipynb"

    def exercise(self, stem: str) -> Path:
        return self.answers / f"{stem}.py"

    def answer_files(self) -> list[Path]:
        """The answers' Markdown files, by number."""
        return sorted(path for path in self.answers.glob("q*.md") if STEM.fullmatch(path.stem))

    def question_notebooks(self) -> list[Path]:
        """The questions' notebooks, by number."""
        return sorted(p for p in self.notebooks.glob("q*.ipynb") if STEM.fullmatch(p.stem))
