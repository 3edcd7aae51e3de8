"""The environment's own kernelspec."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.provisioning.factory import KernelProvisionerFactory

from companion.study.kernels.provisioner import WarmProvisioner
from companion.study.kernels.spec import install_kernelspec, installed_kernelspec


def test_the_spec_names_the_warm_provisioner_and_keeps_the_encryption(tmp_path: Path) -> None:
    path = install_kernelspec(tmp_path)
    content = json.loads(path.read_text())
    assert content["argv"] == ["python", "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    assert content["metadata"]["supported_encryption"] == ["curve"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


def test_jupyter_finds_the_provisioner_that_the_spec_names(tmp_path: Path) -> None:
    install_kernelspec(tmp_path)
    specs = KernelSpecManager(kernel_dirs=[str(tmp_path / "share" / "jupyter" / "kernels")])
    found = KernelProvisionerFactory.instance().create_provisioner_instance(
        "id", specs.get_kernel_spec("python3"), None
    )
    assert isinstance(found, WarmProvisioner)


def test_installing_again_changes_nothing(tmp_path: Path) -> None:
    path = install_kernelspec(tmp_path)
    before = path.stat()
    install_kernelspec(tmp_path)
    assert (path.stat().st_ino, path.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_an_install_that_fails_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install_kernelspec(tmp_path)
    path.write_text("{}")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        install_kernelspec(tmp_path)
    assert [file.name for file in path.parent.iterdir()] == ["kernel.json"]
    assert path.read_text() == "{}"


def test_what_is_installed_can_be_told(tmp_path: Path) -> None:
    assert installed_kernelspec(tmp_path).state == "missing"
    path = install_kernelspec(tmp_path)
    found = installed_kernelspec(tmp_path)
    assert (found.path, found.state, found.encrypted) == (path, "warm", True)
    path.write_text(json.dumps({"argv": [], "metadata": {}}))
    assert installed_kernelspec(tmp_path).state == "ordinary"
    for broken in ("{", "[]", '{"metadata": 1}'):
        path.write_text(broken)
        assert installed_kernelspec(tmp_path).state == "broken"
