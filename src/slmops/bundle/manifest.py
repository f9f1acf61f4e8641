"""The manifest of a bundle: what the folder holds and where it came from.

<bundle>/manifest.json    this file; covers every other file by digest
<bundle>/evidence.json    what was measured on exactly this model
<bundle>/MODEL_CARD.md    the same for people, where the writer had one
<bundle>/phrases.safetensors    what its answers commonly say, where it writes them
<bundle>/model/           weights, runtime configuration, tokenizer, chat template
<bundle>/adapters/        what the model can be run with for other tasks: a file each, or a folder of PEFT
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from slmops.errors import BadInput
from slmops.models.weight_files import WEIGHTS
from slmops.pipeline.files import files_below, sha256

FORMAT = 3
"""The newest that is read. In format 1 there is no calibration, and before format 3 there are no adapters."""

MANIFEST = "manifest.json"
EVIDENCE = "evidence.json"
CARD = "MODEL_CARD.md"
MODEL = "model"
ADAPTERS = "adapters"

NAME, VERSION = r"^[a-z0-9][a-z0-9._-]*$", r"^[0-9A-Za-z][0-9A-Za-z.+-]*$"

_MAX_MANIFEST_BYTES = 4_000_000
_MAX_OTHER_BYTES = 64_000_000


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    whole = path.parts and str(path) == name and name.isprintable()
    if not whole or path.is_absolute() or ".." in path.parts or "\\" in name:
        raise ValueError(f"{name!r} is no path inside a bundle")
    return name


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FileRecord(_Part):
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    size: int = Field(ge=0, description="Bytes.")


class Generation(_Part):
    """How the model is asked unless a caller says otherwise; see `Sampling`."""

    max_tokens: int = Field(ge=1)
    temperature: float = Field(default=0.0, ge=0)
    top_p: float = Field(default=1.0, gt=0, le=1)


class Calibration(_Part):
    """What the probabilities of labels are made of; see `slmops.evaluate.temperature`."""

    temperature: float = Field(gt=0, description="That log-likelihoods are divided by.")
    rows: int = Field(ge=0, description="It was fitted on.")
    answered_accuracy: float = Field(ge=0, le=1, description="Wanted of the answers that are given.")
    abstain_below: float | None = Field(None, description="Least probability with which that was reached.")
    ece_before: float = Field(ge=0, description="Expected calibration error on the test rows without the temperature.")
    ece_after: float = Field(ge=0, description="The same with it.")


class Adapter(_Part):
    """One of the adapters of a bundle: another task of the same model, with its prompts made by the same template."""

    path: Annotated[str, AfterValidator(_inside)] = Field(description="Its file, or a folder of PEFT, in the bundle.")
    task: dict[str, Any] = Field(description="`Task.describe()`.")
    generation: Generation
    calibration: Calibration | None = None
    evidence: str | None = Field(None, description="What was measured of it, a file of the bundle.")


class Manifest(_Part):
    """All that a bundle says about itself. Nothing in it depends on the time or place of writing."""

    format: int = Field(FORMAT, description="Raised when an older reader would misread the folder.")
    name: str = Field(pattern=NAME)
    version: str = Field(pattern=VERSION)
    created: str | None = Field(None, description="ISO 8601, where the writer wants it known.")
    engine: str = Field(description="Name of the engine that runs `model/`.")
    task: dict[str, Any] = Field(description="`Task.describe()`.")
    generation: Generation
    calibration: Calibration | None = Field(
        None, description="Of a bundle with labels whose probabilities were fitted."
    )
    evidence: str = EVIDENCE
    adapters: dict[Annotated[str, Field(pattern=NAME)], Adapter] = Field(
        default_factory=dict, description="By the names that they are asked for by."
    )
    lineage: dict[str, Any] = Field(description="Recipe, seed, digests of what went in, versions and machine.")
    files: dict[Annotated[str, AfterValidator(_inside)], FileRecord]

    def text(self) -> str:
        """The canonical text of `manifest.json`."""
        none = set() if self.adapters else {"adapters"}
        return self.model_dump_json(indent=2, exclude_none=True, exclude=none) + "\n"


def read_manifest(folder: Path, *, verify: bool = True) -> Manifest:
    """The manifest of the bundle in `folder`, after checking that the folder is what the manifest says.

    Args:
        verify: compare the digest of every file; sizes and names are always compared.

    Raises:
        BadInput: it is no bundle, a newer format, cut short, changed, or holds what it should not.
    """
    manifest = _parse(folder / MANIFEST)
    found = set(_plain_files(folder)) - {MANIFEST}
    if missing := sorted(manifest.files.keys() - found):
        raise _damaged(folder, f"{missing[0]} is missing")
    if extra := sorted(found - manifest.files.keys()):
        raise _damaged(folder, f"{extra[0]} is not in its manifest")
    if manifest.evidence not in found:
        raise _damaged(folder, f"its evidence {manifest.evidence} is missing")
    for name, adapter in manifest.adapters.items():
        parts = [file for file in found if file == adapter.path or file.startswith(f"{adapter.path}/")]
        if not parts or adapter.evidence not in {None, *found}:
            raise _damaged(folder, f"the adapter {name} has no {adapter.evidence if parts else adapter.path}")
    for name, record in manifest.files.items():
        size = (folder / name).stat().st_size
        if size != record.size:
            raise _damaged(folder, f"{name} has {size} bytes instead of {record.size}")
        if size > _MAX_OTHER_BYTES and not name.endswith(WEIGHTS):
            raise _damaged(folder, f"{name} has {size} bytes; only weights may have more than {_MAX_OTHER_BYTES}")
    for name, record in manifest.files.items() if verify else ():
        if sha256(folder / name) != record.sha256:
            raise _damaged(folder, f"{name} was changed after it was written")
    return manifest


def _parse(path: Path) -> Manifest:
    if path.is_symlink() or not path.is_file():
        raise BadInput(f"{path.parent} is not a bundle: it has no {MANIFEST}", hint="give the folder of a bundle")
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        raise _damaged(path.parent, f"{MANIFEST} has more than {_MAX_MANIFEST_BYTES} bytes")
    try:
        content = json.loads(path.read_bytes())
        format = content["format"]
        if isinstance(format, int) and format > FORMAT:
            raise BadInput(
                f"the bundle {path.parent} has format {format}; this slmops reads up to {FORMAT}",
                hint="pip install --upgrade slmops",
            )
        return Manifest.model_validate(content)
    except ValidationError as error:
        detail = error.errors()[0]
        place = ".".join(map(str, detail["loc"]))
        raise _damaged(path.parent, f"{MANIFEST}: {place}: {detail['msg']}") from None
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise _damaged(path.parent, f"{MANIFEST} is not readable: {error!r}") from None


def _plain_files(folder: Path) -> list[str]:
    """Paths below `folder`; a link or a device could stand for anything outside it."""
    for entry in folder.rglob("*"):
        if entry.is_symlink() or not (entry.is_dir() or entry.is_file()):
            raise _damaged(folder, f"{entry.relative_to(folder)} is not a plain file")
    return files_below(folder)


def _damaged(folder: Path, what: str) -> BadInput:
    return BadInput(f"the bundle {folder} cannot be trusted: {what}", hint="copy it again from where it was made")
