"""Files of data sets that lie in the local cache of the Hugging Face Hub."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

HUB = "hub:"
_REFERENCE = re.compile(
    r"hub:(?P<set>[\w.-]+/[\w.-]+)(?P<folder>(/[\w.-]+)*)(@(?P<revision>[\w./-]+))?:(?P<split>[\w-]+)"
)
_ROWS = (".parquet", ".jsonl", ".json", ".csv")


def hub_file(given: Any) -> Any:
    """The file that `hub:OWNER/NAME[/FOLDER][@REVISION]:SPLIT` names; anything else as it is. Nothing is fetched.

    Raises:
        ValueError: it is no such reference, the set is not in the cache, or not one file of it belongs to the split.
    """
    if not isinstance(given, str) or not given.startswith(HUB):
        return given
    named = _REFERENCE.fullmatch(given)
    if named is None or any(part in (".", "..") for part in given.removeprefix(HUB).split("/")):
        raise ValueError("a set of the Hub is hub:OWNER/NAME:SPLIT, with /FOLDER or @REVISION behind NAME where needed")
    folder = _snapshot(named["set"], named["revision"]) / named["folder"].strip("/")
    files = sorted(file for file in folder.rglob("*") if file.suffix in _ROWS and file.is_file())
    names = {file: file.relative_to(folder).as_posix() for file in files}
    found = [file for file in files if re.search(rf"(?<![a-z]){re.escape(named['split'])}(?![a-z])", names[file])]
    if len(found) != 1:
        told = ", ".join(names[file] for file in (found or files)[:5]) or "none at all"
        which = f"{len(found)} files are" if found else "no file is"
        raise ValueError(f"{which} of the split {named['split']} of {named['set']}; it takes one, there: {told}")
    return found[0]


def _snapshot(name: str, revision: str | None) -> Path:
    """The folder of a set in the cache."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, repo_type="dataset", revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        at = f" --revision {revision}" if revision else ""
        raise ValueError(
            f"the set {name} is not in the local cache of the Hub: hf download --repo-type dataset {name}{at}"
        ) from None
