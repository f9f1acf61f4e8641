from __future__ import annotations

import errno
import os
import sqlite3
from pathlib import Path

import pytest

from slmops.errors import BadInput, SlmopsError
from slmops.pipeline.files import (
    bytes_below,
    bytes_freed_without,
    content_digest,
    files_below,
    link_or_copy,
    storage_errors,
)


def test_only_what_cannot_change_is_linked(tmp_path: Path) -> None:
    data, sealed = tmp_path / "data.bin", tmp_path / "sealed.bin"
    data.write_bytes(b"data")
    sealed.write_bytes(b"sealed")
    sealed.chmod(0o444)
    link_or_copy(data, tmp_path / "out" / "data.bin")
    link_or_copy(sealed, tmp_path / "out" / "sealed.bin")
    data.write_bytes(b"edited")
    assert (tmp_path / "out" / "data.bin").read_bytes() == b"data"
    assert (tmp_path / "out" / "sealed.bin").samefile(sealed)


def test_a_link_to_a_file_becomes_the_file(tmp_path: Path) -> None:
    sealed, link = tmp_path / "sealed.bin", tmp_path / "link.bin"
    sealed.write_bytes(b"sealed")
    sealed.chmod(0o444)
    link.symlink_to(sealed)
    link_or_copy(link, tmp_path / "out.bin")
    assert not (tmp_path / "out.bin").is_symlink()
    assert (tmp_path / "out.bin").read_bytes() == b"sealed"


def test_an_edited_file_gets_a_new_digest(tmp_path: Path) -> None:
    path = tmp_path / "rows"
    path.write_text("one")
    before = content_digest(path)
    path.write_text("two")
    assert content_digest(path) != before


def test_a_file_and_a_folder_holding_it_differ(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "x").write_text("one")
    assert content_digest(tmp_path / "folder") != content_digest(tmp_path / "folder" / "x")


def test_a_pipe_is_no_source(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(BadInput, match="not a plain file"):
        content_digest(tmp_path / "pipe")


def test_a_link_to_a_folder_is_not_silently_left_out(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "data" / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="link is not a plain file"):
        content_digest(tmp_path / "data")


def test_files_are_listed_below_all_folders(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "c").touch()
    (tmp_path / "z").touch()
    assert files_below(tmp_path) == ["a/b/c", "z"]
    with pytest.raises(FileNotFoundError):
        files_below(tmp_path / "nowhere")


def test_a_shared_file_counts_once_and_is_freed_with_its_last_name(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    one.mkdir()
    two.mkdir()
    (one / "x").write_bytes(b"x" * 100)
    (two / "x").hardlink_to(one / "x")
    (two / "y").write_bytes(b"y" * 10)
    assert bytes_below(one, two) == 110
    assert bytes_freed_without(one) == 0
    assert bytes_freed_without(two) == 10
    assert bytes_freed_without(one, two) == 110
    assert bytes_below(tmp_path / "nowhere") == 0


def test_disk_trouble_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(SlmopsError, match="no space left for") as full, storage_errors(tmp_path):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "x"))
    assert "goes on" in str(full.value.hint)
    with pytest.raises(SlmopsError, match="no space left for"), storage_errors(tmp_path):
        raise RuntimeError("I/O error: No space left on device (os error 28)")
    with pytest.raises(BadInput, match="cannot write below") as read_only, storage_errors(tmp_path):
        raise OSError(errno.EROFS, "Read-only file system", str(tmp_path / "x"))
    assert "--home" in str(read_only.value.hint)


def test_other_errors_pass_as_they_are(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), storage_errors(tmp_path / "home"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "data.jsonl"))
    with pytest.raises(ValueError, match="a bug"), storage_errors(tmp_path):
        raise ValueError("a bug")


def test_a_database_in_a_read_only_folder_is_said_in_plain_words(tmp_path: Path) -> None:
    sqlite3.connect(tmp_path / "x.db").close()
    reader = sqlite3.connect(f"{(tmp_path / 'x.db').as_uri()}?mode=ro", uri=True)
    with pytest.raises(BadInput, match="cannot write below"), storage_errors(tmp_path):
        reader.execute("CREATE TABLE t (x)")
    reader.close()
