"""The house itself: clean code, files that agree with each other, and nothing that names a host."""

import ast
import json
import subprocess
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import yaml
from jupyter_server.serverapp import ServerApp
from jupyterlab.labapp import LabApp
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version
from voila.app import Voila
from voila.configuration import VoilaConfiguration

from companion.cli.checks import CHECKS, run_check

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted((ROOT / "companion").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCK_LINES = (ROOT / "requirements.lock").read_text().splitlines()
PINS = {canonicalize_name(pin.name): pin for pin in map(Requirement, LOCK_LINES)}
LONGEST_MODULE = 400
# Spelled apart, so that this file does not name what no file may name.
HOSTS = [
    ".".join(words)
    for words in (
        ("pypi", "org"),
        ("pythonhosted", "org"),
        ("download", "pytorch", "org"),
        ("npmjs", "org"),
        ("npmjs", "com"),
        ("deb", "debian", "org"),
        ("anaconda", "org"),
    )
]


@pytest.mark.parametrize("name", CHECKS)
def test_the_code_passes(name):
    result = run_check(name, ROOT)
    assert result.passed, f"\n{result.said}"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_says_what_it_is_and_can_be_read_in_one_sitting(path):
    text = path.read_text()
    assert len(text.splitlines()) <= LONGEST_MODULE
    assert ast.get_docstring(ast.parse(text)), "a module begins with what it is"


def test_no_module_is_a_drawer_for_odds_and_ends():
    drawers = {"utils", "util", "helpers", "helper", "common", "misc"}
    assert [path for path in MODULES if path.stem in drawers or path.parent.name in drawers] == []


def declared():
    project = PROJECT["project"]
    extras = chain.from_iterable(project["optional-dependencies"].values())
    yield from (*project["dependencies"], *extras, *PROJECT["build-system"]["requires"])


@pytest.mark.parametrize("text", list(declared()))
def test_the_lock_satisfies_what_the_project_asks_for(text):
    wanted = Requirement(text)
    pin = PINS[canonicalize_name(wanted.name)]
    assert wanted.specifier.contains(pinned_version(pin))
    assert str(wanted.marker) == str(pin.marker)


def pinned_version(pin):
    (only,) = pin.specifier
    assert only.operator == "==", pin
    return Version(only.version)


def test_the_lock_pins_every_package_once():
    assert len(PINS) == len(LOCK_LINES)
    for pin in PINS.values():
        assert pinned_version(pin)


def test_torch_is_pinned_by_its_release_so_that_pip_may_choose_a_cpu_build():
    assert str(PINS["torch"].specifier) == "==2.13.0"
    assert pinned_version(PINS["torch"]).local is None


def test_the_lock_asks_for_no_cuda_package():
    assert [name for name in PINS if name.startswith(("nvidia-", "cuda-", "triton"))] == []


def test_the_conda_environment_is_the_lock_on_a_python_that_the_project_supports():
    conda = yaml.safe_load((ROOT / "environment.yml").read_text())
    (python,) = [item for item in conda["dependencies"] if str(item).startswith("python=")]
    minor = python.removeprefix("python=")
    assert SpecifierSet(PROJECT["project"]["requires-python"]).contains(f"{minor}.0")
    (pip,) = [item["pip"] for item in conda["dependencies"] if isinstance(item, dict)]
    assert pip == ["-r requirements.lock", "-e ."]


def test_the_setup_asks_for_the_same_oldest_python_as_the_project():
    tree = ast.parse((ROOT / "bootstrap.py").read_text())
    assigned = {
        node.targets[0].id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }
    oldest = ".".join(map(str, ast.literal_eval(assigned["OLDEST"])))
    assert PROJECT["project"]["requires-python"] == f">={oldest}"


@pytest.fixture(scope="module")
def files_in_git():
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode != 0:
        pytest.skip("this is no git checkout")
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def test_no_file_names_the_host_of_a_package_registry(files_in_git):
    found = [
        (str(path.relative_to(ROOT)), host)
        for path in files_in_git
        for host in HOSTS
        if host.encode() in path.read_bytes()
    ]
    assert found == []


def test_no_file_in_git_is_too_big_to_be_read(files_in_git):
    assert [path.name for path in files_in_git if path.stat().st_size > 3_000_000] == []


SETTINGS = json.loads(
    (ROOT / "jupyter_config" / "labconfig" / "default_setting_overrides.json").read_text()
)


@pytest.mark.parametrize("plugin", SETTINGS)
def test_the_labs_settings_are_settings_that_this_jupyterlab_has(plugin):
    package, _, name = plugin.partition(":")
    schemas = Path(sys.prefix) / "share" / "jupyter" / "lab" / "schemas"
    schema = json.loads((schemas / package / f"{name}.json").read_text())
    assert set(SETTINGS[plugin]) <= set(schema["properties"])


@pytest.mark.parametrize(
    ("name", "classes"),
    [
        ("jupyter_server_config.json", [ServerApp]),
        ("jupyter_lab_config.json", [LabApp]),
        ("voila.json", [Voila, VoilaConfiguration]),
    ],
)
def test_the_servers_settings_are_settings_that_these_servers_have(name, classes):
    config = json.loads((ROOT / "jupyter_config" / name).read_text())
    known = {cls.__name__: cls.class_trait_names(config=True) for cls in classes}
    assert {key: set(config[key]) - set(known[key]) for key in config} == {
        key: set() for key in config
    }


@pytest.mark.parametrize("name", ["jupyter_server_config.json", "voila.json"])
def test_servers_listen_on_loopback_only(name):
    config = json.loads((ROOT / "jupyter_config" / name).read_text())
    assert {section["ip"] for section in config.values() if "ip" in section} == {"127.0.0.1"}
