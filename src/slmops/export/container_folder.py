"""A bundle as a container: what builds its image, and what runs it by Compose, Kubernetes and KServe."""

from __future__ import annotations

import re
from collections.abc import Iterable
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from string import Template

from slmops.bundle import Bundle, open_bundle
from slmops.bundle.manifest import MANIFEST, MODEL
from slmops.engines import RUNNING
from slmops.errors import BadInput
from slmops.export.folder import fresh
from slmops.export.wheel import write_wheel
from slmops.models.weight_files import weights_bytes
from slmops.pipeline.files import link_or_copy

_SERVES = (
    "aiohttp",
    "jinja2",
    "jsonschema",
    "llguidance",
    "numpy",
    "prometheus-client",
    "psutil",
    "pydantic",
    "pyyaml",
    "safetensors",
    "tokenizers",
    "typer",
)
"""What `slmops serve` imports, besides its runtime. What trains and measures stays outside."""

# Batches are run by onnxruntime alone; onnxruntime-genai is what asks a model elsewhere.
_RUNTIMES = {
    "onnxruntime-genai": ("onnxruntime", "onnx"),
    "llama.cpp": ("llama-cpp-python", "gguf"),
}

_BASE_MB = 512
"""Of a process that serves, besides the weights, which are in memory once as a file and once unpacked."""


def export_container(folder: Path, out: Path) -> Path:
    """Write the bundle in `folder` to `out` with a Containerfile, a compose file and manifests.

    The image has this slmops in it, as a wheel, and the versions of packages that run here.

    Raises:
        BadInput: the bundle cannot be trusted or is not served, its name is none for Kubernetes, or `out` holds
            something.
    """
    bundle = open_bundle(folder)
    told = bundle.manifest
    if told.engine not in RUNNING:
        raise BadInput(f"the engine {told.engine} cannot be served", hint=f"ship for {' or '.join(RUNNING)}")
    if not re.fullmatch(r"[a-z]([a-z0-9-]{0,48}[a-z0-9])?", told.name):
        raise BadInput(
            f"the bundle is called {told.name}, and Kubernetes takes letters, digits and hyphens, 50 at most",
            hint="set bundle.name, and run the recipe again",
        )
    fresh(out)
    for name in (MANIFEST, *told.files):
        link_or_copy(folder / name, out / "bundle" / name)
    write_wheel(out)
    pinned = requirements((*_SERVES, *_RUNTIMES[told.engine]))
    (out / "requirements.txt").write_text("".join(f"{line}\n" for line in pinned), encoding="utf-8")
    for name, text in manifests(bundle).items():
        (out / name).write_text(text, encoding="utf-8")
    return out


def manifests(bundle: Bundle) -> dict[str, str]:
    """The files that build and run the image, by name."""
    memory_mb = _BASE_MB + 2 * weights_bytes(bundle.folder / MODEL) // 1_000_000
    # An image's tag has no plus sign, which a version may have.
    version = bundle.manifest.version.replace("+", "-")
    told = {"name": bundle.manifest.name, "version": version, "memory_mb": str(memory_mb)}
    place = files("slmops.export") / "container"
    texts = {entry.name: entry.read_text(encoding="utf-8") for entry in place.iterdir()}
    return {name: text if name == "Containerfile" else Template(text).substitute(told) for name, text in texts.items()}


def requirements(roots: Iterable[str]) -> list[str]:
    """`name==version` of packages and all that they need, as they are installed here.

    Raises:
        BadInput: one is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    found: dict[str, str] = {}
    seen: set[tuple[str, ...]] = set()
    open_ = [Requirement(root) for root in roots]
    while open_:
        wanted = open_.pop()
        name = canonicalize_name(wanted.name)
        if (name, *sorted(wanted.extras)) in seen:
            continue
        seen.add((name, *sorted(wanted.extras)))
        try:
            package = metadata.distribution(name)
        except metadata.PackageNotFoundError:
            raise BadInput(f"{name} is not installed, and the image needs it", hint=f"pip install {name}") from None
        found[name] = package.version
        for line in package.requires or ():
            needed = Requirement(line)
            asked = [{"extra": extra} for extra in ("", *wanted.extras)]
            if needed.marker is None or any(needed.marker.evaluate(each) for each in asked):
                open_.append(needed)
    # A build for one machine's processor has a mark behind its version that no registry knows.
    return sorted(f"{name}=={version.partition('+')[0]}" for name, version in found.items())
