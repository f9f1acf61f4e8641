"""This very slmops as a wheel, so that a container runs what the bundle was exported with."""

from __future__ import annotations

import base64
import hashlib
import zipfile
from importlib import metadata
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

_PACKAGE = "slmops"
_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of every file, so that equal packages make equal wheels."""


def write_wheel(folder: Path) -> Path:
    """Write the package that runs here to `folder` as a wheel (Binary distribution format 1.0), and give its path."""
    told = metadata.distribution(_PACKAGE)
    version = told.version
    place = f"{_PACKAGE}-{version}.dist-info"
    content = dict(_files(files(_PACKAGE), _PACKAGE))
    # An editable installation names its metadata otherwise.
    about = told.read_text("METADATA") or told.read_text("PKG-INFO") or ""
    entries = "\n".join(f"{entry.name} = {entry.value}" for entry in told.entry_points)
    content |= {
        f"{place}/METADATA": about.encode(),
        f"{place}/WHEEL": b"Wheel-Version: 1.0\nGenerator: slmops\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{place}/entry_points.txt": f"[console_scripts]\n{entries}\n".encode(),
    }
    lines = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in content.items()]
    content[f"{place}/RECORD"] = ("\n".join([*lines, f"{place}/RECORD,,"]) + "\n").encode()
    path = folder / f"{_PACKAGE}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in content.items():
            wheel.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return path


def _files(folder: Traversable, name: str) -> list[tuple[str, bytes]]:
    found = []
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.is_dir():
            found += _files(entry, f"{name}/{entry.name}") if entry.name != "__pycache__" else []
        else:
            found.append((f"{name}/{entry.name}", entry.read_bytes()))
    return found


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
