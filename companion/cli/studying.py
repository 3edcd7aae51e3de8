"""The commands of somebody who studies: lab, next, demo, doctor, kernel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from companion.cli.errors import CommandError

LAB_PORT = 8888
DEMO_PORT = 8866

Port = Annotated[int | None, typer.Option(help="A port of your own choice.", min=1, max=65535)]
Browser = Annotated[bool, typer.Option(help="Open a browser where there is one.")]


def lab(port: Port = None, browser: Browser = True) -> None:
    """Open JupyterLab at the workbook's first page."""
    from companion.cli.servers import LOOPBACK, Server, choose_port, new_token, serve
    from companion.study.workbook import Workbook

    workbook = Workbook.find()
    if not workbook.start_here.is_file():
        raise CommandError(f"{workbook.start_here} is missing: 'git checkout' brings it back.")
    free, remark = choose_port(port, LAB_PORT)
    if remark:
        print(remark)
    token = new_token()
    command = [sys.executable, "-m", "jupyterlab", f"--ServerApp.root_dir={workbook.root}"]
    command += [f"--ServerApp.port={free}", f"--ServerApp.ip={LOOPBACK}"]
    command += [f"--LabApp.workspaces_dir={_workspaces()}"]
    if os.geteuid() == 0:  # a container; Jupyter asks for a word on it
        command.append("--allow-root")
    page = workbook.start_here.relative_to(workbook.root)
    environment = {**_settings(workbook.root), "JUPYTER_TOKEN": token}
    serve(
        Server("JupyterLab", command, environment, free, token, f"/lab/tree/{page.as_posix()}"),
        open_browser=browser,
    )


def demo(
    name: Annotated[str | None, typer.Argument(help="One demo; without a name, the list.")] = None,
    port: Port = None,
    browser: Browser = True,
) -> None:
    """Show the interactive demos with Voila, for a projector."""
    from companion.cli.servers import Server, choose_port, new_token, serve
    from companion.study.workbook import Workbook

    workbook = Workbook.find()
    folder = workbook.notebooks / "demos"
    shown = _named_demo(folder, name) if name else folder
    free, remark = choose_port(port, DEMO_PORT)
    if remark:
        print(remark)
    token = new_token()
    command = [sys.executable, "-m", "voila", str(shown), "--token", f"--Voila.port={free}"]
    environment = {**_settings(workbook.root), "JUPYTER_TOKEN": token}
    serve(
        Server("Voila", command, environment, free, token, "/"),
        open_browser=browser,
    )


def next_question() -> None:
    """Say which question is due."""
    from companion.study import agenda, catalogue, progress, recall
    from companion.study.workbook import Workbook

    everything = agenda.places(
        catalogue.read_catalogue(Workbook.find()),
        progress.Progress().events(),
        recall.make_scheduler(),
    )
    advice = agenda.next_question(everything, progress.now())
    if advice.place is None:
        print(advice.reason)
        return
    entry = advice.place.entry
    print(f"{entry.label} · {entry.title}: {advice.reason} (notebooks/{entry.stem}.ipynb)")


def doctor() -> None:
    """Look for what is wrong with this machine or set-up, and say how to mend it."""
    from companion.cli.tables import findings_table, show
    from companion.study.doctor import examine

    findings = examine()
    show(findings_table(findings))
    wrong = [finding for finding in findings if finding.ok is False]
    for finding in wrong:
        print(f"{finding.name}: {finding.mend}")
    if wrong:
        raise typer.Exit(1)


def kernel() -> None:
    """Install the notebooks' kernel into this environment, as the set-up does."""
    from companion.study.kernels.spec import install_kernelspec

    print(f"The kernel is installed: {install_kernelspec(Path(sys.prefix))}")


def _named_demo(folder: Path, name: str) -> Path:
    path = folder / f"{name.removesuffix('.ipynb')}.ipynb"
    if not path.is_file():
        known = ", ".join(sorted(demo.stem for demo in folder.glob("*.ipynb"))) or "none yet"
        raise CommandError(f"There is no demo {name!r}; the demos are: {known}.")
    return path


def _settings(root: Path) -> dict[str, str]:
    """The environment that puts our configuration and our commands before the person's own.

    With the commands, a terminal in JupyterLab knows `companion`.
    """

    def before(own: Path, name: str) -> str:
        return os.pathsep.join(filter(None, [str(own), os.environ.get(name, "")]))

    return {
        "JUPYTER_CONFIG_PATH": before(root / "jupyter_config", "JUPYTER_CONFIG_PATH"),
        "PATH": before(Path(sys.executable).parent, "PATH"),
    }


def _workspaces() -> Path:
    """Where the lab keeps its window layout, apart from the person's other JupyterLabs."""
    from companion.study.progress import data_folder

    return data_folder() / "jupyterlab"
