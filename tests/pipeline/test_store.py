from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest

from slmops.errors import SlmopsError
from slmops.pipeline.keys import Provenance
from slmops.pipeline.locks import Held
from slmops.pipeline.store import Damaged, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def provenance(text: str = "") -> Provenance:
    return Provenance(stage="s", version=1, settings={"text": text}, inputs={}, sources={}, libraries={}, seed=7)


def put(store: Store, text: str = "", metrics: dict[str, float | str] | None = None) -> str:
    """An artifact with two files, one of them in a folder."""
    source = provenance(text)
    draft = store.begin(source.key())
    (draft.out / "deep").mkdir()
    (draft.out / "deep" / "a.txt").write_text(text)
    (draft.out / "manifest.json").write_text("a stage's own file of this name")
    store.commit(draft, source, metrics or {}, 1.5)
    return source.key()


def test_what_was_committed_is_found(store: Store) -> None:
    key = put(store, "hello", {"loss": 0.5, "rows": 12, "kind": "toy"})
    artifact = store.open(key)
    assert artifact is not None
    assert (artifact.path / "deep" / "a.txt").read_text() == "hello"
    assert (artifact.path / "manifest.json").read_text() == "a stage's own file of this name"
    assert artifact.manifest.metrics == {"loss": 0.5, "rows": 12, "kind": "toy"}
    assert artifact.manifest.seconds == 1.5
    assert set(artifact.manifest.files) == {"deep/a.txt", "manifest.json"}
    assert artifact.manifest.files["deep/a.txt"].size == 5
    assert store.whole() == [key]
    store.verify(key)
    assert not any(store.drafts.iterdir())
    assert not any(store.works.iterdir())


def test_files_of_an_artifact_are_read_only(store: Store) -> None:
    artifact = store.open(put(store))
    assert artifact is not None
    assert (artifact.path / "deep" / "a.txt").stat().st_mode & 0o222 == 0


def test_a_folder_without_a_manifest_does_not_exist(store: Store) -> None:
    key = put(store)
    (store.artifacts / key / "manifest.json").unlink()
    assert store.open(key) is None
    assert store.whole() == []
    assert put(store) == key, "the husk makes room"
    store.verify(key)


def test_an_artifact_that_another_process_made_meanwhile_is_kept(store: Store) -> None:
    first, second = store.begin(provenance().key()), None
    (first.out / "x").write_text("mine")
    first.out.parent.rename(first.out.parent.with_name("elsewhere"))
    key = put(store, metrics={"winner": 1})
    second = store.begin(key)
    (second.out / "x").write_text("mine")
    store.commit(second, provenance(), {"winner": 2}, 0.0)
    artifact = store.open(key)
    assert artifact is not None
    assert artifact.manifest.metrics == {"winner": 1}
    store.verify(key)


def test_work_survives_until_the_artifact_is_whole(store: Store) -> None:
    key = provenance().key()
    killed = store.begin(key)
    (killed.work / "checkpoint").write_text("step 100")
    (killed.out / "half").write_text("half an answer")
    draft = store.begin(key)
    assert (draft.work / "checkpoint").read_text() == "step 100"
    assert list(draft.out.iterdir()) == []
    store.discard(draft)
    assert (draft.work / "checkpoint").exists()
    put(store)
    assert not draft.work.exists()


def test_missing_and_cut_files_are_seen_at_once(store: Store) -> None:
    cut, gone = put(store, "cut"), put(store, "gone")
    path = store.artifacts / cut / "files" / "deep" / "a.txt"
    path.chmod(0o644)
    path.write_text("c")
    (store.artifacts / gone / "files" / "deep" / "a.txt").unlink()
    with pytest.raises(Damaged, match="has 1 bytes, not 3"):
        store.open(cut)
    with pytest.raises(Damaged, match="is missing"):
        store.open(gone)
    assert store.find(cut) is store.find(gone) is None


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 2}'])
def test_a_manifest_that_is_none_is_damage(store: Store, content: str) -> None:
    key = put(store)
    (store.artifacts / key / "manifest.json").write_text(content)
    with pytest.raises(Damaged, match="is not a manifest"):
        store.open(key)


def test_verify_reads_every_byte(store: Store) -> None:
    key = put(store, "hello")
    path = store.artifacts / key / "files" / "deep" / "a.txt"
    path.chmod(0o644)
    path.write_text("jello")
    assert store.open(key) is not None
    with pytest.raises(Damaged, match="does not have the recorded digest"):
        store.verify(key)


def test_verify_sees_a_file_that_was_added(store: Store) -> None:
    key = put(store)
    (store.artifacts / key / "files" / "extra").touch()
    with pytest.raises(Damaged, match="extra was added later"):
        store.verify(key)


def test_verify_sees_an_artifact_under_a_wrong_key(store: Store) -> None:
    key, other = put(store, "one"), provenance("two").key()
    (store.artifacts / key).rename(store.artifacts / other)
    with pytest.raises(Damaged, match="belongs to another key"):
        store.verify(other)
    path = store.artifacts / other / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps({**manifest, "key": other}))
    with pytest.raises(Damaged, match="belongs to another key"):
        store.verify(other)


def test_a_stage_may_not_leave_links(store: Store, tmp_path: Path) -> None:
    draft = store.begin(provenance().key())
    (draft.out / "link").symlink_to(tmp_path)
    with pytest.raises(SlmopsError, match="link, which is not a plain file"):
        store.commit(draft, provenance(), {}, 0.0)
    assert store.whole() == []


def test_figures_become_plain(store: Store) -> None:
    key = put(store, metrics={"a": np.float32(0.5), "b": np.int64(3), "c": math.nan, "d": math.inf})
    artifact = store.open(key)
    assert artifact is not None
    assert artifact.manifest.metrics == {"a": 0.5, "b": 3.0, "c": "nan", "d": "inf"}


def test_dropped_is_gone(store: Store) -> None:
    key = put(store)
    store.drop(key)
    assert store.open(key) is None
    assert not any(store.drafts.iterdir())


def test_tidy_removes_what_the_dead_left_and_nothing_else(store: Store) -> None:
    done, dead, alive = put(store, "done"), provenance("dead").key(), provenance("alive").key()
    (store.begin(dead).work / "checkpoint").touch()
    leftover = store.begin(done)
    with store.lock(alive):
        store.begin(alive)
        store.tidy()
    assert {path.name for path in store.drafts.iterdir()} == {alive}
    assert {path.name for path in store.works.iterdir()} == {alive, dead}
    assert not leftover.work.exists()
    assert store.whole() == [done]


def test_deleting_waits_for_no_run_and_no_run_for_another(store: Store) -> None:
    with store.in_use(), store.in_use(), pytest.raises(SlmopsError, match="a run is using"), store.alone():
        pass
    with store.alone():
        pass


def test_one_key_has_one_maker(store: Store) -> None:
    with store.lock("k"), pytest.raises(Held), store.lock("k"):
        pass
    with store.lock("k"), store.lock("other"):
        pass
