"""A GGUF file is parsed once, and what comes out is what transformers alone would read."""

from __future__ import annotations

import gguf
import numpy as np
import pytest

from slmops.models.gguf import read_once


@pytest.fixture
def file(tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "one.gguf", "llama")
    writer.add_tensor("output_norm.weight", np.ones(4, dtype=np.float32))
    for part in ("write_header_to_file", "write_kv_data_to_file", "write_tensors_to_file", "close"):
        getattr(writer, part)()
    return tmp_path / "one.gguf"


def test_inside_a_file_is_parsed_once_and_the_table_of_names_built_once(file):
    with read_once():
        first = gguf.GGUFReader(file)
        assert gguf.GGUFReader(file) is first
        assert [tensor.name for tensor in first.tensors] == ["output_norm.weight"]
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2)
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 2) is names
        assert gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3) is not names


def test_outside_nothing_is_kept_even_after_a_failure(file):
    before = gguf.GGUFReader, gguf.get_tensor_name_map
    with pytest.raises(FileNotFoundError), read_once():
        gguf.GGUFReader(file.with_name("none.gguf"))
    assert (gguf.GGUFReader, gguf.get_tensor_name_map) == before
    assert gguf.GGUFReader(file) is not gguf.GGUFReader(file)
