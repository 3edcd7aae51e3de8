"""An artefact comes back as it was saved, or an error names the file that is not."""

import hashlib
import json
import math
import shutil
import subprocess
from datetime import UTC, datetime, timedelta, timezone
from importlib.metadata import version

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier

from companion.models import artefacts
from companion.models.artefact_errors import (
    ArtefactError,
    ArtefactExistsError,
    ArtefactNotFoundError,
    CorruptArtefactError,
    InvalidMetadataError,
)
from companion.models.artefact_metadata import TrainingRecord
from companion.models.artefacts import load_artefact, save_artefact
from companion.models.onnx import export as exporting
from companion.models.onnx.errors import UnsupportedModelError
from companion.storage import MissingFolderError

BEGIN, END = datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 8, 31, 23, 59, tzinfo=UTC)
NOW = datetime(2026, 9, 1, 12, tzinfo=timezone(timedelta(hours=2)))
FILES = ["SHA256SUMS", "metadata.json", "model.onnx"]


def record(**changes):
    return TrainingRecord(
        **{
            "family": "logistic",
            "feature_set": "v3",
            "window": (BEGIN, END),
            "seed": 7,
            "metrics": {"average_precision": 0.62, "rows": 400},
        }
        | changes
    )


@pytest.fixture(scope="module")
def rows():
    rng = np.random.default_rng(5)
    return pd.DataFrame(rng.normal(size=(400, 2)), columns=["amount", "distance"])


@pytest.fixture(scope="module")
def model(rows):
    return LogisticRegression().fit(rows, (rows["amount"] > 0.5).astype(int))


@pytest.fixture
def folder(tmp_path, model, rows):
    place = tmp_path / "fraud-1"
    save_artefact(place, model, rows, record(), clock=lambda: NOW)
    return place


def test_a_saved_model_predicts_the_same_after_loading(folder, model, rows):
    loaded = load_artefact(folder)
    assert np.abs(loaded.model.predict_proba(rows) - model.predict_proba(rows)).max() <= 1e-6


def test_its_metadata_say_where_it_comes_from(folder):
    metadata = load_artefact(folder).metadata
    assert metadata.training == record()
    assert metadata.features == ("amount", "distance")
    assert metadata.created_at == NOW
    assert metadata.created_at.tzinfo == UTC
    assert metadata.packages["scikit-learn"] == version("scikit-learn")
    assert {"companion", "numpy", "onnx", "onnxruntime", "torch"} < set(metadata.packages)


def test_saving_gives_what_loading_gives(tmp_path, model, rows):
    saved = save_artefact(tmp_path / "one", model, rows, record(), clock=lambda: NOW)
    loaded = load_artefact(tmp_path / "one", threads=2)
    assert (saved.metadata, saved.sha256) == (loaded.metadata, loaded.sha256)
    assert np.array_equal(saved.model.predict_proba(rows), loaded.model.predict_proba(rows))


def test_the_folder_holds_three_files_and_no_pickle(folder):
    assert sorted(path.name for path in folder.iterdir()) == FILES
    assert json.loads((folder / "metadata.json").read_text())["seed"] == 7
    assert sorted(path.name for path in folder.parent.iterdir()) == [folder.name]


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="there is no sha256sum here")
def test_sha256sum_can_verify_it(folder):
    done = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True)
    assert done.returncode == 0


def test_the_clock_without_an_argument_is_the_present(tmp_path, model, rows):
    before = datetime.now(UTC)
    saved = save_artefact(tmp_path / "now", model, rows, record())
    assert before <= saved.metadata.created_at <= datetime.now(UTC)


def test_an_existing_folder_is_never_overwritten(folder, model, rows):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(ArtefactExistsError) as caught:
        save_artefact(folder, model, rows, record(seed=8))
    assert caught.value.folder == folder
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_of_two_who_save_one_name_the_second_is_told(tmp_path, model, rows, monkeypatch):
    place = tmp_path / "same"
    export = exporting.export_onnx

    def overtaken(*arguments, **settings):
        monkeypatch.setattr(exporting, "export_onnx", export)
        save_artefact(place, model, rows, record(seed=1))
        return export(*arguments, **settings)

    monkeypatch.setattr(exporting, "export_onnx", overtaken)
    with pytest.raises(ArtefactExistsError):
        save_artefact(place, model, rows, record(seed=2))
    assert load_artefact(place).metadata.training.seed == 1
    assert [path.name for path in tmp_path.iterdir()] == ["same"]


def test_a_file_of_that_name_is_not_overwritten_either(tmp_path, model, rows):
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(ArtefactExistsError):
        save_artefact(tmp_path / "taken", model, rows, record())
    assert (tmp_path / "taken").read_text() == "mine"


def test_the_parent_is_not_made_silently(tmp_path, model, rows):
    with pytest.raises(MissingFolderError):
        save_artefact(tmp_path / "no" / "one", model, rows, record())
    assert not list(tmp_path.iterdir())


def test_a_model_that_cannot_be_exported_leaves_nothing(tmp_path, rows):
    neighbours = KNeighborsClassifier().fit(rows, (rows["amount"] > 0).astype(int))
    with pytest.raises(UnsupportedModelError):
        save_artefact(tmp_path / "one", neighbours, rows, record())
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_nothing(tmp_path, model, rows, monkeypatch):
    def full(staged, final):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefacts, "publish_folder", full)
    with pytest.raises(OSError, match="No space left"):
        save_artefact(tmp_path / "one", model, rows, record())
    assert not list(tmp_path.iterdir())


def test_what_is_not_there_is_not_found(tmp_path):
    with pytest.raises(ArtefactNotFoundError):
        load_artefact(tmp_path / "one")
    (tmp_path / "file").write_text("")
    with pytest.raises(ArtefactNotFoundError):
        load_artefact(tmp_path / "file")


@pytest.fixture
def nothing_is_parsed(folder, monkeypatch):
    def parse(*arguments, **settings):
        raise AssertionError("parsed before it was verified")

    monkeypatch.setattr(artefacts, "OnnxModel", parse)
    monkeypatch.setattr(artefacts, "from_json", parse)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("nothing_is_parsed")
@pytest.mark.parametrize("damage", ["flipped", "truncated", "emptied", "longer", "missing"])
def test_a_damaged_file_is_named_before_anything_is_parsed(damage, name, folder):
    path = folder / name
    whole = path.read_bytes()
    middle = len(whole) // 3
    path.unlink()
    if damage != "missing":
        path.write_bytes(
            {
                "flipped": whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :],
                "truncated": whole[:middle],
                "emptied": b"",
                "longer": whole + b"\nx",
            }[damage]
        )
    with pytest.raises(CorruptArtefactError) as caught:
        load_artefact(folder)
    # A sum that was changed accuses the file it is for: nothing can tell which of the two it was.
    assert caught.value.file in ({name} if name != "SHA256SUMS" else {name, "model.onnx"})
    assert caught.value.folder == folder
    assert caught.value.file in str(caught.value)


@pytest.mark.usefixtures("nothing_is_parsed")
def test_a_file_that_does_not_belong_there_is_named(folder):
    (folder / "model.pkl").write_bytes(b"")
    with pytest.raises(CorruptArtefactError, match="does not belong") as caught:
        load_artefact(folder)
    assert caught.value.file == "model.pkl"


@pytest.mark.usefixtures("nothing_is_parsed")
@pytest.mark.parametrize("name", FILES)
def test_a_link_is_not_followed(name, folder, tmp_path):
    (folder / name).rename(tmp_path / "elsewhere")
    (folder / name).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CorruptArtefactError, match="no regular file") as caught:
        load_artefact(folder)
    assert caught.value.file == name


@pytest.mark.usefixtures("nothing_is_parsed")
@pytest.mark.parametrize("change", [lambda lines: lines[:1], lambda lines: [lines[0], *lines]])
def test_sums_of_other_files_are_refused(change, folder):
    sums = folder / "SHA256SUMS"
    sums.write_text("".join(change(sums.read_text().splitlines(keepends=True))))
    with pytest.raises(CorruptArtefactError, match="does not hold the checksums") as caught:
        load_artefact(folder)
    assert caught.value.file == "SHA256SUMS"


def rewrite(folder, name, content):
    (folder / name).write_bytes(content)
    (folder / "SHA256SUMS").write_text(
        "".join(
            f"{hashlib.sha256((folder / each).read_bytes()).hexdigest()}  {each}\n"
            for each in ("model.onnx", "metadata.json")
        )
    )


@pytest.mark.parametrize("content", [b"{}", b"[1]", b"\xff", b"no json"])
def test_metadata_in_another_form_are_refused_though_the_sums_fit(content, folder):
    rewrite(folder, "metadata.json", content)
    with pytest.raises(CorruptArtefactError, match="is no metadata") as caught:
        load_artefact(folder)
    assert caught.value.file == "metadata.json"


def test_metadata_of_a_later_format_are_refused(folder):
    later = json.loads((folder / "metadata.json").read_text()) | {"format": 2}
    rewrite(folder, "metadata.json", json.dumps(later).encode())
    with pytest.raises(CorruptArtefactError, match="format 2 is not 1"):
        load_artefact(folder)


def test_a_model_in_another_form_is_refused_though_the_sums_fit(folder):
    rewrite(folder, "model.onnx", b"pickle me")
    with pytest.raises(CorruptArtefactError, match="is no model") as caught:
        load_artefact(folder)
    assert caught.value.file == "model.onnx"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"family": ""}, "family"),
        ({"feature_set": ""}, "feature_set"),
        ({"window": (END, BEGIN)}, "window"),
        ({"window": (datetime(2026, 1, 1), END)}, "window"),
        ({"metrics": {"roc_auc": math.nan}}, "metrics"),
    ],
)
def test_a_record_that_would_not_come_back_is_refused(changes, field):
    with pytest.raises(InvalidMetadataError) as caught:
        record(**changes)
    assert caught.value.field == field


def test_a_clock_without_a_zone_is_refused(tmp_path, model, rows):
    with pytest.raises(InvalidMetadataError, match="created_at"):
        save_artefact(tmp_path / "one", model, rows, record(), clock=lambda: datetime(2026, 1, 1))
    assert not list(tmp_path.iterdir())


def test_all_its_errors_can_be_caught_as_one(tmp_path):
    with pytest.raises(ArtefactError):
        load_artefact(tmp_path / "one")
