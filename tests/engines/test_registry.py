from __future__ import annotations

import subprocess
import sys

import pytest

from slmops.engines import ENGINES, engine_of, load_engine
from slmops.errors import BadInput


def test_an_unknown_engine_names_the_known_ones(tmp_path):
    with pytest.raises(BadInput, match="no engine 'abacus'") as error:
        load_engine("abacus", tmp_path)
    assert all(name in error.value.hint for name in ENGINES)


@pytest.mark.parametrize("name", sorted(ENGINES))
def test_an_engine_that_is_not_installed_says_what_to_install(name, tmp_path):
    """In a process where the runtime cannot be imported."""
    code = f"""
import sys
sys.modules["torch"] = sys.modules["onnxruntime_genai"] = sys.modules["llama_cpp"] = sys.modules["openvino"] = None
from pathlib import Path
from slmops.engines import load_engine
from slmops.errors import BadInput
try:
    load_engine({name!r}, Path({str(tmp_path)!r}))
except BadInput as error:
    print(error.hint)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pip install ")


def test_the_files_tell_whose_model_a_folder_holds(tmp_path):
    with pytest.raises(BadInput, match="holds no model"):
        engine_of(tmp_path)
    for file, engine in (("config.json", "transformers"), ("genai_config.json", "onnxruntime-genai")):
        (tmp_path / file).touch()
        assert engine_of(tmp_path) == engine
    (tmp_path / "model.gguf").touch()
    assert engine_of(tmp_path) == "llama.cpp"


def test_the_registry_imports_no_runtime():
    runtimes = {"torch", "transformers", "onnxruntime_genai", "llama_cpp"}
    code = f"import sys, slmops.engines; print({runtimes} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
