"""Runtimes behind one protocol, loaded by name."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from slmops.engines.base import Adaptable, Engine, EngineInfo, Finish, Sampling, Token
from slmops.engines.running import Running
from slmops.errors import BadInput
from slmops.models.tag_files import is_tagger

__all__ = [
    "ADAPTING",
    "ENGINES",
    "RUNNING",
    "SAME_FILE",
    "Engine",
    "EngineInfo",
    "Finish",
    "Running",
    "Sampling",
    "Token",
    "adapted_engine",
    "check_installed",
    "engine_of",
    "load_engine",
    "load_running",
]

ENGINES = {
    "transformers": "slmops.engines.transformers:TransformersEngine",
    "onnxruntime-genai": "slmops.engines.onnxruntime:OnnxGenaiEngine",
    "openvino": "slmops.engines.openvino:OpenVinoEngine",
    "llama.cpp": "slmops.engines.llamacpp:LlamaCppEngine",
}
"""Name to `module:class`; the module is imported when the engine is first loaded."""

_PACKAGES = {
    "transformers": ("transformers", "pip install transformers"),
    "onnxruntime-genai": ("onnxruntime_genai", "pip install onnxruntime-genai"),
    "openvino": ("openvino", "pip install 'slmops[openvino]'"),
    "llama.cpp": ("llama_cpp", "pip install 'slmops[llamacpp]' (it is compiled, for minutes)"),
}
"""What an engine imports, and how it is installed."""

_BATCH_PACKAGES = _PACKAGES | {"onnxruntime-genai": ("onnxruntime", "pip install onnxruntime")}
"""What a running batch imports: of the first it is onnxruntime alone."""

RUNNING = {
    "onnxruntime-genai": "slmops.engines.onnx_running:OnnxRunning",
    "openvino": "slmops.engines.openvino_running:OpenVinoRunning",
    "llama.cpp": "slmops.engines.llamacpp_running:LlamaCppRunning",
    "transformers": "slmops.engines.transformers_running:TransformersRunning",
}
"""What a server drives the same models by."""

ADAPTING = ("onnxruntime-genai", "transformers")
"""Those that run adapters beside a base."""

SAME_FILE = {"onnxruntime-genai": ("openvino",), "openvino": ("onnxruntime-genai",)}
"""Others that run what was made for an engine: the same values, in the same file."""

FILES = {
    "model.gguf": "llama.cpp",
    "openvino.json": "openvino",
    "genai_config.json": "onnxruntime-genai",
    "config.json": "transformers",
}
"""What tells whose model a folder holds; the first that is there counts."""

BODIES = {
    "transformers": "slmops.engines.transformers:TransformersBody",
    "onnxruntime-genai": "slmops.engines.onnx_body:OnnxBody",
    "openvino": "slmops.engines.openvino_body:OpenVinoBody",
}
"""What the same runtimes run of a model that labels. Of ONNX it is onnxruntime alone: there is nothing to generate."""

DEVICES = {"transformers": "slmops.models.device:fastest_device"}
"""What says where a runtime computes best; the onnxruntime of the lock knows processors alone."""


def engine_of(folder: Path) -> str:
    """The engine that the files of `folder` are for.

    Raises:
        BadInput: it holds no model.
    """
    for file, engine in FILES.items():
        if (folder / file).is_file():
            return engine
    problem = "holds no model" if folder.is_dir() else "does not exist"
    raise BadInput(f"{folder} {problem}", hint=f"a model has one of {', '.join(FILES)}")


def check_installed(name: str, *, serving: bool = False) -> None:
    """Refuse an engine, or with `serving` its running batch, whose package is not there, without loading it.

    Raises:
        BadInput: with the command that installs it.
    """
    package, install = (_BATCH_PACKAGES if serving else _PACKAGES)[name]
    if find_spec(package) is None:
        raise BadInput(f"the engine {name} is not installed", hint=install)


def on_gpu(name: str) -> bool:
    """Whether the engine `name` has a GPU to compute on."""
    return name in DEVICES and _named(DEVICES[name])() != "cpu"


def load_engine(name: str, folder: Path, *, threads: int = 0, gpu: bool = False) -> Engine:
    """The model in `folder`, ready to run.

    Args:
        name: a key of `ENGINES`.
        threads: 0 takes all cores that this process may use.
        gpu: compute on a GPU where there is one and the runtime has a use for it; else on the processor, as always
            where time and memory are measured.

    Raises:
        BadInput: the engine does not exist or is not installed, or the folder does not hold a model of it.
    """
    if name not in ENGINES:
        raise BadInput(f"there is no engine {name!r}", hint=f"choose one of {', '.join(sorted(ENGINES))}")
    where = {"device": _named(DEVICES[name])()} if gpu and name in DEVICES else {}
    if is_tagger(folder):
        from slmops.engines.tagging import TaggingEngine

        return TaggingEngine(_named(BODIES[name]).load(folder, threads=threads, **where), folder)
    engine: Engine = _named(ENGINES[name]).load(folder, threads=threads, **where)
    return engine


def adapted_engine(engine: Engine, path: Path) -> Engine:
    """The model of `engine` with an adapter; see `Adaptable.adapted`.

    Raises:
        BadInput: the engine runs none, or not this one.
    """
    if not isinstance(engine, Adaptable):
        name = engine.info().engine
        raise BadInput(f"the engine {name} runs no adapters", hint="merge it, or ship the model for onnxruntime-genai")
    return engine.adapted(path)


def load_running(name: str, folder: Path, *, slots: int, threads: int = 0) -> Running:
    """The model in `folder` as a batch that requests join and leave, on a GPU where the runtime has a use for one.

    Args:
        name: a key of `RUNNING`.
        slots: requests at a time.
        threads: 0 takes all cores that this process may use.

    Raises:
        BadInput: there is no such batch for the engine, or the model cannot be loaded.
    """
    if name not in RUNNING:
        raise BadInput(f"the engine {name} cannot be served", hint=f"ship the model for {' or '.join(RUNNING)}")
    check_installed(name, serving=True)
    if is_tagger(folder):
        from slmops.engines.tagging import TaggingEngine
        from slmops.engines.tagging_running import TaggingRunning

        return TaggingRunning(TaggingEngine(_named(BODIES[name]).load(folder, threads=threads), folder), slots)
    where = {"device": _named(DEVICES[name])()} if name in DEVICES else {}
    running: Running = _named(RUNNING[name]).load(folder, slots=slots, threads=threads, **where)
    return running


def _named(path: str) -> Any:
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)
