"""What every part of a recipe is made of: strict models, and paths that are looked up when it is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo


def existing_file(path: Path, info: ValidationInfo) -> Path:
    """A path in a recipe file is meant from that file's folder; in a recipe built in Python it stays as given."""
    return _existing(path, info, Path.is_file, "file")


def existing_folder(path: Path, info: ValidationInfo) -> Path:
    """As `existing_file`."""
    return _existing(path, info, Path.is_dir, "folder")


def _existing(path: Path, info: ValidationInfo, there: Callable[[Path], bool], what: str) -> Path:
    if not info.context:
        return path
    found = Path(info.context["folder"], path.expanduser()).absolute()
    if not there(found):
        raise ValueError(f"there is no {what} {found}")
    return found


def local_model(model: str, info: ValidationInfo) -> str:
    """A folder is meant from the recipe's folder; anything else is left to those who load models."""
    if not info.context or model.startswith("wheel:"):
        return model
    found = Path(info.context["folder"], Path(model).expanduser()).absolute()
    if found.is_dir():
        return str(found)
    if model.startswith(("/", "./", "../", "~")):
        raise ValueError(f"there is no folder {found}")
    return model


def one_or_more(given: Any) -> Any:
    """A list as it is, anything else as the one thing in it."""
    return given if isinstance(given, list) else [given]


PLAIN, MAPPING = ":plain", ":mapping"
"""What pydantic calls the alternatives of a value that is plain or a mapping; no steps of a path in a recipe."""


def plain_or_mapping(given: Any) -> str:
    """Tells such alternatives apart, so that what is wrong with one is not told of the other too."""
    return MAPPING if isinstance(given, Mapping | BaseModel) else PLAIN


Share = Annotated[float, Field(ge=0, lt=1)]
File = Annotated[Path, Field(strict=False), AfterValidator(existing_file)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(existing_folder)]
FolderName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$")]


class Settings(BaseModel):
    """A strict, frozen part of a recipe: an unknown key is an error, and so is a text where a number belongs."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        serialize_by_alias=True,
        protected_namespaces=(),
    )
