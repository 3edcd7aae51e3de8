"""``validate``: notebooks in, outcomes out."""

from __future__ import annotations

import asyncio
import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from companion.study.atomic import write_atomically
from companion.study.validation.fingerprint import (
    SANITIZE,
    PassedRuns,
    fingerprint,
    shared_fingerprint,
)
from companion.study.validation.outcome import Difference, Outcome, Progress, ValidationError
from companion.study.validation.report import page
from companion.study.validation.selection import Selected, select, take_shard

if TYPE_CHECKING:
    from companion.study.validation.comparison import Comparison
    from companion.study.validation.engine import Execution

CELL_LIMIT_S = 600.0


def validate(
    notebooks: Sequence[Path],
    *,
    root: Path,
    fresh: bool = False,
    jobs: int = 2,
    shard: tuple[int, int] | None = None,
    parameters: Mapping[str, object] | None = None,
    on_progress: Callable[[Progress], None] = lambda _: None,
    report: Path | None = None,
    store: bool = False,
    cell_limit_s: float = CELL_LIMIT_S,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Outcome]:
    """Run notebooks, ``jobs`` at a time, and compare what they print with what is stored in them.

    ``root`` is the checkout; records of passed runs go to ``root/build/validation``, and a notebook
    is skipped if nothing that it depends on has changed since it passed, unless ``fresh``.
    With ``parameters`` outputs are not compared: the notebook's own assertions decide. ``shard``
    ``(i, n)`` takes the i-th of n equal parts. ``report`` is where to write the HTML page.
    ``store`` runs everything and writes the new outputs into the notebooks instead of comparing.

    What fails beside others runs once more, alone, since many notebooks measure, and their company
    may have been what they measured. The second outcome counts, and tells of the first.

    Returns one outcome a notebook, in the order of their paths. Raises ``ValidationError`` before
    any kernel starts if the request is wrong. Ctrl-C shuts all kernels down.
    """
    if jobs < 1:
        raise ValidationError(f"At least one kernel is needed at a time; jobs is {jobs}.")
    if store and parameters:
        raise ValidationError("Outputs of a run with other parameters are not stored.")
    if shard is not None:
        take_shard([], shard)
    passed = PassedRuns(root / "build" / "validation")
    try:
        passed.folder.mkdir(parents=True, exist_ok=True)
    except OSError as refused:
        raise ValidationError(f"Results cannot be recorded: {refused}.") from refused
    selected = select(sorted(set(notebooks)), parameters or {})
    chosen = set(take_shard([item.path for item in selected], shard))
    validation = _Validation(
        root=root,
        passed=passed,
        shared=shared_fingerprint(root),
        fresh=fresh or store,
        store=store,
        compare=not parameters,
        cell_limit_s=cell_limit_s,
        clock=clock,
        on_progress=on_progress,
    )
    items = [item for item in selected if item.path in chosen]
    outcomes = asyncio.run(validation.all_of(items, jobs))
    if report is not None:
        write_atomically(report, page(outcomes, root=root))
    return outcomes


@dataclass(frozen=True)
class _Validation:
    root: Path
    passed: PassedRuns
    shared: str
    fresh: bool
    store: bool
    compare: bool
    cell_limit_s: float
    clock: Callable[[], float]
    on_progress: Callable[[Progress], None]

    async def all_of(self, items: Sequence[Selected], jobs: int) -> list[Outcome]:
        slots = asyncio.Semaphore(jobs)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self.one(item, slots)) for item in items]
        outcomes = [task.result() for task in tasks]
        if min(jobs, len(items)) == 1:
            return outcomes
        return [
            await self.alone(item, outcome) if outcome.state == "failed" else outcome
            for item, outcome in zip(items, outcomes, strict=True)
        ]

    async def alone(self, item: Selected, first: Outcome) -> Outcome:
        second = await self.one(item, asyncio.Semaphore(1))
        note = f"run again, alone; beside others it failed: {first.error}"
        return replace(second, notes=(*second.notes, note), disturbed=first.error)

    async def one(self, item: Selected, slot: asyncio.Semaphore) -> Outcome:
        depends = partial(
            fingerprint, item.path, root=self.root, shared=self.shared, parameters=item.parameters
        )
        before = depends()
        if not self.fresh and self.passed.has(item.path, item.parameters, before):
            outcome = Outcome(item.path, "skipped-unchanged", notes=item.notes)
        else:
            outcome = await self._run(item, slot)
            if outcome.state == "passed":
                self.passed.note(item.path, item.parameters, depends() if self.store else before)
            else:
                self.passed.forget(item.path, item.parameters)
        self.on_progress(Progress(item.path, seconds=outcome.seconds, outcome=outcome))
        return outcome

    async def _run(self, item: Selected, slot: asyncio.Semaphore) -> Outcome:
        from companion.study.validation.comparison import Comparison
        from companion.study.validation.engine import execute
        from companion.study.validation.storing import store, with_outputs

        node = parameterized(item.node, item.parameters)

        def on_cell(index: int) -> None:
            cell = node.cells[index].get("id")
            self.on_progress(Progress(item.path, cell, index, len(node.cells)))

        execution = await execute(
            node,
            folder=item.path.resolve().parent,
            cell_limit_s=self.cell_limit_s,
            slot=slot,
            clock=self.clock,
            on_cell=on_cell,
        )
        rules = self.root / SANITIZE
        comparison = Comparison(rules if rules.is_file() else None)
        differences = compare(node, execution, comparison) if self.compare else ()
        if self.store and execution.failed is None:
            store(item.path, with_outputs(item.node, execution.node, comparison))
        return outcome_of(item, execution, differences, stored=self.store)


def parameterized(node: Any, parameters: Mapping[str, object]) -> Any:
    """The notebook with papermill's cell of parameters after the one that is tagged for it."""
    if not parameters:
        return node
    from papermill.parameterize import parameterize_notebook

    node = copy.deepcopy(node)
    node.metadata.setdefault("papermill", {})
    for cell in node.cells:
        cell.metadata.setdefault("tags", [])
    node = parameterize_notebook(node, dict(parameters), kernel_name="python3", language="python")
    for cell in node.cells:
        if "injected-parameters" in cell.metadata.get("tags", ()):
            cell["id"] = "injected-parameters"
    return node


def compare(node: Any, execution: Execution, comparison: Comparison) -> tuple[Difference, ...]:
    """The differences between what is stored in ``node`` and what its cells sent when executed."""
    from companion.study.validation.comparison import options_of

    found = []
    for index in execution.seconds:
        cell = node.cells[index]
        options = options_of(cell)
        if index == execution.failed or options["skip"] or not options["check"]:
            continue
        found.append(comparison.difference(cell, execution.sent[index]))
    return tuple(difference for difference in found if difference is not None)


def outcome_of(
    item: Selected, execution: Execution, differences: tuple[Difference, ...], *, stored: bool
) -> Outcome:
    """What a run amounts to. Differences fail it, unless the new outputs were stored."""
    cells = execution.node.cells
    failing = None if execution.failed in (None, -1) else cells[execution.failed]
    error = execution.error
    if failing is None and not error and differences and not stored:
        failing = next(cell for cell in cells if cell.get("id", "(no id)") == differences[0].cell)
        error = f"the output of {len(differences)} cell(s) is not the stored one"
    slowest, slowest_s = execution.slowest
    return Outcome(
        notebook=item.path,
        state="failed" if error else "passed",
        seconds=execution.total_s,
        slowest_cell=slowest,
        slowest_seconds=slowest_s,
        failing_cell=None if failing is None else str(failing.get("id", "(no id)")),
        failing_source="" if failing is None else failing.source,
        error=error,
        traceback=execution.traceback,
        differences=differences,
        notes=item.notes,
    )
