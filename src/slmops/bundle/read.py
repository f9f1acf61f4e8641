"""Opening a bundle."""

from __future__ import annotations

from pathlib import Path

from slmops.bundle.manifest import read_manifest
from slmops.bundle.predict import Bundle


def open_bundle(path: Path | str, *, verify: bool = True, threads: int = 0) -> Bundle:
    """The bundle in the folder `path`, ready to be asked.

    Args:
        verify: compare the digest of every file; sizes and names are always compared.
        threads: of the engine; 0 takes all cores.

    Raises:
        BadInput: it is no bundle, a newer format, cut short, changed, or holds what it should not.
    """
    folder = Path(path)
    return Bundle(folder, read_manifest(folder, verify=verify), threads=threads)
