"""The environment's own ``python3`` kernelspec, which names the warm provisioner.

Jupyter looks for kernelspecs in the environment before anywhere else, and every notebook asks for
``python3``; so one file switches JupyterLab, papermill, nbval and Voila over, with no flag. It is
ipykernel's own spec, debugger and encryption included, with one entry more.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ipykernel.kernelspec import get_kernel_dict

from companion.study.atomic import write_atomically

PROVISIONER = "companion-warm"
LOCATION = Path("share", "jupyter", "kernels", "python3", "kernel.json")


@dataclass(frozen=True)
class InstalledSpec:
    """What an environment has for ``python3``: ``warm``, ``ordinary``, ``broken`` or ``missing``.

    ``encrypted`` says that kernels are told to encrypt what they send (CurveZMQ).
    """

    path: Path
    state: Literal["warm", "ordinary", "broken", "missing"]
    encrypted: bool = False


def warm_spec() -> dict[str, Any]:
    """The content of ``kernel.json``."""
    spec: dict[str, Any] = get_kernel_dict()
    spec["argv"][0] = "python"
    spec["metadata"] = {
        **spec.get("metadata", {}),
        "supported_encryption": ["curve"],
        "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {}},
    }
    return spec


def install_kernelspec(prefix: Path) -> Path:
    """Write the spec into the environment at ``prefix``; returns its path. Atomic, idempotent."""
    path = prefix / LOCATION
    content = json.dumps(warm_spec(), indent=1) + "\n"
    if path.is_file() and path.read_text(encoding="utf-8") == content:
        return path
    write_atomically(path, content)
    return path


def installed_kernelspec(prefix: Path) -> InstalledSpec:
    """What is installed at ``prefix`` now."""
    path = prefix / LOCATION
    try:
        metadata = json.loads(path.read_text(encoding="utf-8")).get("metadata", {})
        provisioner = metadata.get("kernel_provisioner", {}).get("provisioner_name")
        encrypted = "curve" in metadata.get("supported_encryption", [])
    except FileNotFoundError:
        return InstalledSpec(path, "missing")
    except (OSError, ValueError, AttributeError, TypeError):
        return InstalledSpec(path, "broken")
    return InstalledSpec(path, "warm" if provisioner == PROVISIONER else "ordinary", encrypted)
