"""One notebook, executed cell by cell by nbclient, with the time of each cell.

The kernel is whatever the notebook's kernelspec says, so warm kernels are used where they are
installed. Each wait has a limit: the kernel's start, each cell, and the kernel's end.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import NoSuchKernel
from nbclient import NotebookClient
from nbclient.exceptions import CellControlSignal, CellExecutionError, DeadKernelError
from nbformat.v4 import output_from_msg

from companion.study.validation.comparison import cell_name, options_of

START_LIMIT_S = 120
END_LIMIT_S = 10.0
ANSI = re.compile(r"\x1b\[[^@-~]*[@-~]")
SKIP_TAG = "nbval-skip"
COMPARED_MESSAGES = ("stream", "display_data", "execute_result", "error")


@dataclass
class Execution:
    """What came of running a notebook: its node with new outputs, and what each cell sent.

    ``sent`` holds the outputs as they were sent, before any was cleared or updated, by cell
    index; that is what nbval compares. ``seconds`` holds times by cell index, ``total_s`` that of
    the whole run with the kernel's start. ``failed`` is the index of the cell that ended the run,
    or -1 if the kernel did not start.
    """

    node: Any
    sent: dict[int, list[Any]] = field(default_factory=lambda: defaultdict(list))
    seconds: dict[int, float] = field(default_factory=dict)
    total_s: float = 0.0
    failed: int | None = None
    error: str = ""
    traceback: str = ""

    @property
    def slowest(self) -> tuple[str | None, float]:
        """The id of the cell that took longest, and its seconds."""
        if not self.seconds:
            return None, 0.0
        index = max(self.seconds, key=self.seconds.__getitem__)
        return cell_name(self.node.cells[index]), self.seconds[index]


class _Client(NotebookClient):
    """nbclient, noting what each cell sends."""

    sent: dict[int, list[Any]]

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        if msg["msg_type"] in COMPARED_MESSAGES:
            self.sent[cell_index].append(output_from_msg(msg))
        return super().process_message(msg, cell, cell_index)


async def execute(
    node: Any,
    *,
    folder: Path,
    cell_limit_s: float,
    slot: asyncio.Semaphore,
    clock: Callable[[], float] = time.perf_counter,
    on_cell: Callable[[int], None] = lambda _: None,
) -> Execution:
    """Run a copy of ``node`` in a kernel of its own, started in ``folder``.

    ``slot`` is held while cells run and let go before the kernel shuts down. A cell that raises
    without leave, takes longer than ``cell_limit_s`` or kills the kernel ends the run; that is a
    result, not an error.
    """
    execution = Execution(copy.deepcopy(node))
    client = _Client(
        execution.node,
        timeout=max(1, round(cell_limit_s)),
        startup_timeout=START_LIMIT_S,
        store_widget_state=False,
        record_timing=False,
        coalesce_streams=True,
        skip_cells_with_tag=SKIP_TAG,
    )
    client.sent = execution.sent
    _tag_skipped(execution.node)
    manager = client.create_kernel_manager()
    try:
        async with slot:
            started = clock()
            with _failing(execution, -1):
                await client.async_start_new_kernel(cwd=str(folder))
                await client.async_start_new_kernel_client()
            for index, cell in enumerate(execution.node.cells):
                if execution.failed is not None:
                    break
                on_cell(index)
                began = clock()
                with _failing(execution, index):
                    await client.async_execute_cell(cell, index)
                if cell.cell_type == "code":
                    execution.seconds[index] = clock() - began
            execution.total_s = clock() - started
    finally:
        await _shut_down(client, manager)
    return execution


@contextlib.contextmanager
def _failing(execution: Execution, index: int) -> Iterator[None]:
    """Turn what ends a notebook into part of the execution's result."""
    try:
        yield
    except CellExecutionError as raised:
        execution.failed = index
        execution.error = f"{raised.ename}: {ANSI.sub('', str(raised.evalue))}"
        last = execution.sent[index][-1:]
        frames = last[0].get("traceback", []) if last else []
        execution.traceback = ANSI.sub("", "\n".join(frames) or raised.traceback)
    except DeadKernelError:
        execution.failed, execution.error = index, "the kernel died"
    except (CellControlSignal, TimeoutError) as late:
        execution.failed, execution.error = index, str(late).partition("\n")[0]
    except (NoSuchKernel, RuntimeError, OSError) as broken:
        execution.failed, execution.error = index, f"{type(broken).__name__}: {broken}"


async def _shut_down(client: NotebookClient, manager: Any) -> None:
    if client.kc is not None:
        client.kc.stop_channels()
        client.kc = None
    if not manager.has_kernel:
        return
    try:
        await asyncio.wait_for(manager.shutdown_kernel(), END_LIMIT_S)
    except TimeoutError:
        await manager.shutdown_kernel(now=True)


def _tag_skipped(node: Any) -> None:
    """A cell that nbval skips by a comment gets nbval's tag for it, which nbclient understands."""
    for cell in node.cells:
        if cell.cell_type == "code" and options_of(cell)["skip"]:
            cell.metadata["tags"] = [*cell.metadata.get("tags", ()), SKIP_TAG]
