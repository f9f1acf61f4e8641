"""An adapter from outside: PEFT's own is taken to the bit, and whatever else one may hold is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file

from slmops.errors import BadInput
from slmops.models.adapters.attach import merge
from slmops.models.adapters.from_outside import put_lora, read_lora
from slmops.models.source import load_model

IDS = torch.tensor([[3, 14, 15, 9, 26, 53, 58]])


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


def saved(tiny, folder: Path, **sizes: Any) -> torch.Tensor:
    """An adapter that PEFT wrote, with weights of chance, and what the model says with it."""
    torch.manual_seed(1)
    config = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"} | sizes
    model = peft.get_peft_model(load_model(tiny.folder), peft.LoraConfig(**config)).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name:
                weight.normal_(0, 0.1)
    model.save_pretrained(folder)
    return logits(model)


@pytest.mark.parametrize("sizes", [{}, {"use_dora": True}, {"use_rslora": True, "lora_alpha": 3}])
def test_one_of_pefts_says_the_same_once_merged(tiny, tmp_path, sizes):
    said = saved(tiny, tmp_path, **sizes)
    lora, model = read_lora(tmp_path), load_model(tiny.folder)
    assert len(lora.modules) == 4
    put_lora(model, lora)
    merge(model)
    assert torch.allclose(logits(model), said, atol=1e-5)
    assert not torch.allclose(logits(load_model(tiny.folder)), said, atol=1e-2)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"peft_type": "IA3"}, "of the type 'IA3'"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"rank_pattern": {"q_proj": 2}}, "rank_pattern"),
        ({"bias": "all"}, "bias"),
        ({"layer_replication": [[0, 1]]}, "layer_replication"),
        ({"told_by_nobody": "os.system"}, "told_by_nobody"),
        ({"init_lora_weights": "pissa_niter_4"}, "changes the base"),
        ({"r": 1 << 40}, "has the shape"),
        ({"r": "4"}, "r is"),
        ({"r": True}, "r is"),
        ({"lora_alpha": float("inf")}, "no sizes"),
    ],
)
def test_what_is_not_known_of_its_configuration_is_refused(tiny, tmp_path, changed, says):
    saved(tiny, tmp_path)
    path = tmp_path / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changed))
    with pytest.raises(BadInput, match=says):
        read_lora(tmp_path)


def test_names_of_code_in_it_are_not_followed(tiny, tmp_path):
    said = saved(tiny, tmp_path)
    path = tmp_path / "adapter_config.json"
    code = {"parent_library": "no.such.module", "base_model_class": "Nobody"}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"auto_mapping": code, "base_model_name_or_path": "/no"}))
    model = load_model(tiny.folder)
    put_lora(model, read_lora(tmp_path))
    assert torch.allclose(logits(model), said, atol=1e-5)


@pytest.mark.parametrize("text", ["", "[]", "{", '{"a":' * 100_000, " " * (1 << 20) + "{}"])
def test_a_damaged_configuration_is_refused(tiny, tmp_path, text):
    saved(tiny, tmp_path)
    (tmp_path / "adapter_config.json").write_text(text)
    with pytest.raises(BadInput, match="cannot be read"):
        read_lora(tmp_path)


def test_pickled_links_and_cut_off_weights_are_refused(tiny, tmp_path):
    saved(tiny, tmp_path)
    weights = tmp_path / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    with pytest.raises(BadInput, match="cannot be read"):
        read_lora(tmp_path)
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match="it has no file"):
        read_lora(tmp_path)
    weights.unlink()
    (tmp_path / "adapter_model.bin").write_bytes(b"")
    with pytest.raises(BadInput, match="nothing is unpickled"):
        read_lora(tmp_path)


@pytest.mark.parametrize("change", ["missing", "more", "shape", "elsewhere"])
def test_one_of_another_model_is_refused(tiny, tmp_path, change):
    saved(tiny, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    tensors = load_file(path)
    down = min(name for name in tensors if name.endswith("lora_A.weight"))
    up = down.replace("lora_A", "lora_B")
    if change == "missing":
        del tensors[up]
    elif change == "more":
        tensors[up.replace("lora_B.weight", "lora_embedding_B")] = torch.zeros(2)
    elif change == "shape":
        tensors[up] = tensors[up][:-1].contiguous()
    else:
        tensors[down.replace("layers.0", "layers.7")] = tensors.pop(down)
        tensors[up.replace("layers.0", "layers.7")] = tensors.pop(up)
    save_file(tensors, path)
    with pytest.raises(BadInput, match="does not fit"):
        put_lora(load_model(tiny.folder), read_lora(tmp_path))
