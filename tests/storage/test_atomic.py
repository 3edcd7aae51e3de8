"""Files and folders appear whole or not at all."""

import errno
import os
import stat
from pathlib import Path

import pytest

from companion.storage import (
    AlreadyExistsError,
    MissingFolderError,
    publish_folder,
    write_bytes,
    write_text,
)


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def staged_folder(parent: Path, content: str = "new") -> Path:
    folder = parent / "staged"
    (folder / "inner").mkdir(parents=True)
    (folder / "data.txt").write_text(content)
    (folder / "inner" / "more.txt").write_text(content)
    return folder


def test_written_bytes_are_read_back_unchanged(tmp_path):
    write_bytes(tmp_path / "a.bin", b"\x00\r\n\xff")
    assert (tmp_path / "a.bin").read_bytes() == b"\x00\r\n\xff"


def test_text_is_utf8_and_its_line_ends_stay(tmp_path):
    write_text(tmp_path / "a.txt", "é\r\nü\n")
    assert (tmp_path / "a.txt").read_bytes() == "é\r\nü\n".encode()


def test_writing_replaces_the_old_content(tmp_path):
    write_text(tmp_path / "a.txt", "long old content")
    write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_failure_before_the_rename_keeps_the_old_file_and_leaves_nothing_behind(
    tmp_path, monkeypatch
):
    write_text(tmp_path / "a.txt", "old")

    def full_disk(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="no space"):
        write_text(tmp_path / "a.txt", "new")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_the_content_is_synced_before_the_rename_and_the_folder_after(tmp_path, monkeypatch):
    steps = []
    sync, replace = os.fsync, os.replace

    def noted_sync(descriptor):
        kind = "folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file"
        steps.append(f"sync {kind}")
        sync(descriptor)

    def noted_replace(source, target):
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(os, "replace", noted_replace)
    write_text(tmp_path / "a.txt", "x")
    assert steps == ["sync file", "rename", "sync folder"]


def test_a_private_file_is_private_whatever_the_umask(tmp_path):
    write_text(tmp_path / "secret", "x", mode=0o600)
    assert mode_of(tmp_path / "secret") == 0o600


def test_a_requested_mode_is_not_narrowed_by_the_umask(tmp_path):
    write_text(tmp_path / "tool", "x", mode=0o777)
    assert mode_of(tmp_path / "tool") == 0o777


def test_a_replaced_file_keeps_its_permissions(tmp_path):
    write_text(tmp_path / "a", "old", mode=0o640)
    write_text(tmp_path / "a", "new")
    assert mode_of(tmp_path / "a") == 0o640


def test_a_symbolic_link_is_replaced_and_its_target_left_alone(tmp_path):
    write_text(tmp_path / "target", "old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    write_text(tmp_path / "link", "new")
    assert not (tmp_path / "link").is_symlink()
    assert (tmp_path / "target").read_text() == "old"


def test_a_missing_folder_is_named_and_not_made(tmp_path):
    with pytest.raises(MissingFolderError) as caught:
        write_text(tmp_path / "nowhere" / "a.txt", "x")
    assert caught.value.folder == tmp_path / "nowhere"
    assert not (tmp_path / "nowhere").exists()


def test_a_folder_is_not_replaced_by_a_file(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_text(tmp_path / "folder", "x")
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_a_published_folder_holds_all_that_was_staged(tmp_path):
    publish_folder(staged_folder(tmp_path), tmp_path / "v1")
    assert (tmp_path / "v1" / "inner" / "more.txt").read_text() == "new"
    assert not (tmp_path / "staged").exists()


@pytest.mark.parametrize("taken_by", ["folder", "empty folder", "file", "dangling link"])
def test_publishing_never_overwrites(tmp_path, taken_by):
    final = tmp_path / "v1"
    if taken_by == "folder":
        final.mkdir()
        (final / "data.txt").write_text("old")
    elif taken_by == "empty folder":
        final.mkdir()
    elif taken_by == "file":
        final.write_text("old")
    else:
        final.symlink_to(tmp_path / "gone")
    staged = staged_folder(tmp_path)
    with pytest.raises(AlreadyExistsError) as caught:
        publish_folder(staged, final)
    assert caught.value.path == final
    assert (staged / "data.txt").read_text() == "new"
    assert not final.is_dir() or not any(p.read_text() == "new" for p in final.iterdir())


@pytest.mark.parametrize("rival", ["folder", "file"])
def test_publishing_never_overwrites_a_rival_that_won_the_race(tmp_path, monkeypatch, rival):
    """The rival appears after the look and before the rename, as another process would."""
    final = tmp_path / "v1"
    rename = os.rename

    def rival_first(source, target):
        if rival == "folder":
            final.mkdir()
            (final / "data.txt").write_text("rival")
        else:
            final.write_text("rival")
        rename(source, target)

    monkeypatch.setattr(os, "rename", rival_first)
    with pytest.raises(AlreadyExistsError):
        publish_folder(staged_folder(tmp_path), final)
    kept = final / "data.txt" if rival == "folder" else final
    assert kept.read_text() == "rival"


def test_publishing_across_file_systems_reports_the_systems_own_error(tmp_path, monkeypatch):
    def other_device(source, target):
        raise OSError(errno.EXDEV, "invalid cross-device link")

    monkeypatch.setattr(os, "rename", other_device)
    with pytest.raises(OSError, match="cross-device") as caught:
        publish_folder(staged_folder(tmp_path), tmp_path / "v1")
    assert caught.value.errno == errno.EXDEV


def test_an_empty_folder_is_not_published(tmp_path):
    (tmp_path / "staged").mkdir()
    with pytest.raises(ValueError, match="empty"):
        publish_folder(tmp_path / "staged", tmp_path / "v1")


def test_publishing_names_the_missing_folder(tmp_path):
    with pytest.raises(MissingFolderError):
        publish_folder(tmp_path / "staged", tmp_path / "v1")
    with pytest.raises(MissingFolderError) as caught:
        publish_folder(staged_folder(tmp_path), tmp_path / "nowhere" / "v1")
    assert caught.value.folder == tmp_path / "nowhere"
