"""Adapters on a real (tiny) model: each learns, resumes to the bit, comes out as PEFT reads it, and merges."""

import signal
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from safetensors.torch import load_file

from slmops.errors import BadInput
from slmops.models.adapters.files import ADAPTER
from slmops.models.source import load_model, save_model
from slmops.recipe.training import Optimisation, StopEarly, TrainSettings, Tuning
from slmops.train.adapted import merged, taken_out
from slmops.train.checkpoint import kept_tensors, last_checkpoint
from slmops.train.trained import Trained
from slmops.train.trainer import train
from tests.train.test_trainer import examples

METHODS = ("lora", "rslora", "dora", "qlora", "ia3", "bottleneck", "prompt")
MERGED = ("lora", "rslora", "dora", "qlora", "ia3")
IDS = torch.tensor([[3, 14, 15, 9, 26, 53, 58], [97, 93, 23, 84, 62, 64, 33]])


FAST = {"lora": 3e-3, "rslora": 3e-3, "dora": 3e-3, "qlora": 3e-3, "ia3": 0.1, "bottleneck": 2e-2, "prompt": 0.3}
"""Learning rates at which so small a model learns rows of chance."""


def settings(method: str, **others: object) -> Tuning:
    given = {"epochs": 8, "batch_tokens": 64, "precision": "fp32", "checkpoint_seconds": 1e6, "method": method}
    given |= {"learning_rate": FAST.get(method, 1e-3), **others}
    return Tuning.model_validate(given)


def tuned(tiny, work: Path, method: str, **others: object) -> Trained:
    moved = settings(method, **others)
    validation = examples(seed=1)
    return train(tiny.folder, examples(), moved, adapter=moved.to_make, validation=validation, work=work, seed=1)


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS, use_cache=False).logits


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", METHODS)
def test_each_learns_and_comes_back_in_float32(tiny, tmp_path, method, precision):
    trained = tuned(tiny, tmp_path, method, precision=precision)
    assert trained.history[-1]["text"] < 0.99 * trained.history[0]["text"]
    assert {value.dtype for value in trained.model.state_dict().values()} == {torch.float32}
    assert 0 < trained.figures["trainable_parameters"] < 0.6 * trained.figures["parameters"]
    assert trained.adapter.size_bytes == 4 * trained.figures["trainable_parameters"]


@pytest.mark.parametrize("method", MERGED)
def test_what_is_merged_is_a_plain_model_that_says_what_was_trained(tiny, tmp_path, method):
    trained = tuned(tiny, tmp_path, method)
    assert trained.figures["merge_agreement"] > 0.97
    assert trained.figures["merge_kl"] < 1e-3
    assert trained.figures["merge_tokens"] == 24 * 4
    assert trained.model.state_dict().keys() == load_model(tiny.folder).state_dict().keys()


@pytest.mark.parametrize("method", ["lora", "rslora", "dora", "ia3", "prompt"])
def test_peft_reads_the_adapter_and_says_the_same(tiny, tmp_path, method):
    trained = tuned(tiny, tmp_path / "work", method)
    trained.adapter.save(tmp_path / "adapter")
    theirs = peft.PeftModel.from_pretrained(load_model(tiny.folder), tmp_path / "adapter").eval()
    with torch.inference_mode():
        # PEFT runs a prompt without masks and positions of ours, and leaves its places in what comes out.
        said = theirs(input_ids=IDS, attention_mask=torch.ones_like(IDS)).logits[:, -IDS.shape[1] :]
    assert torch.allclose(logits(trained.model), said, atol=2e-4)


@pytest.mark.parametrize("method", ["bottleneck", "prompt"])
def test_what_stays_beside_the_weights_is_saved_and_read_with_them(tiny, tmp_path, method):
    trained = tuned(tiny, tmp_path / "work", method)
    before = logits(trained.model)
    save_model(trained.model, tmp_path / "model", tokenizer_from=tiny.folder)
    assert torch.equal(logits(trained.model), before)
    read = load_model(tmp_path / "model")
    assert torch.equal(logits(read), before)
    plain, base = (load_file(folder / "model.safetensors") for folder in (tmp_path / "model", tiny.folder))
    assert plain.keys() == base.keys()
    assert all(torch.equal(plain[name], base[name]) for name in base)
    assert (tmp_path / "model" / ADAPTER / "adapter_model.safetensors").is_file()


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.train.test_adapters import settings
from tests.train.test_trainer import examples
from slmops.progress import Silent
from slmops.train.trainer import train

class Deadly:
    steps = 0
    def __enter__(self): return self
    def __exit__(self, *_): pass
    def advance(self, amount=1, **figures):
        self.steps += 1
        if self.steps == 12: os.kill(os.getpid(), signal.SIGKILL)

class Watched(Silent):
    def task(self, title, total, unit): return Deadly()

moved = settings(sys.argv[4], checkpoint_seconds=1e-6)
train(Path(sys.argv[2]), examples(), moved, adapter=moved.to_make, work=Path(sys.argv[3]), seed=1, progress=Watched())
"""


@pytest.mark.parametrize("method", ["lora", "qlora", "bottleneck", "prompt"])
def test_killed_and_resumed_is_the_same_to_the_bit(tiny, tmp_path, method):
    unbroken = tuned(tiny, tmp_path / "unbroken", method)
    work = tmp_path / "killed"
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, str(root), str(tiny.folder), str(work), method]
    assert subprocess.run(command, cwd=root, check=False).returncode == -signal.SIGKILL
    kept = last_checkpoint(work)
    assert kept is not None
    # The base is no part of a checkpoint.
    masters = [name for name in kept_tensors(kept) if name.startswith("master.")]
    assert len(masters) == len(unbroken.adapter.tensors)
    resumed = tuned(tiny, work, method, checkpoint_seconds=1e-6)
    assert resumed.tokens == unbroken.tokens
    for name, tensor in unbroken.adapter.tensors.items():
        assert torch.equal(resumed.adapter.tensors[name], tensor), name


def test_still_layers_get_no_adapter_and_the_best_weights_come_out(tiny, tmp_path):
    trained = tuned(tiny, tmp_path, "lora", freeze_layers=1, stop_early=StopEarly(patience=2, every=0.5))
    assert all(".layers.1." in name for name in trained.adapter.tensors)
    assert trained.figures["merge_agreement"] > 0.97
    assert trained.figures["best_step"] <= trained.figures["steps"]


def test_a_wrong_merge_shows(tiny, tmp_path):
    moved = settings("lora")
    adapter = moved.to_make
    trained = load_model(tiny.folder)
    ones = [
        torch.full_like(w, 0.2)
        for w in taken_out(trained, _begun(trained, moved), tiny.folder, moved, adapter)[1].tensors.values()
    ]
    made, _ = taken_out(trained, ones, tiny.folder, moved, adapter)
    told = merged(made, trained, examples(seed=1))
    assert told.kl > 0.01
    assert told.agreement < 0.97


def _begun(model: torch.nn.Module, moved: Tuning) -> list[torch.Tensor]:
    from slmops.models.adapters.attach import attach

    other = load_model(Path(model.config._name_or_path))
    attach(other, moved.to_make)
    return [weight.detach() for weight in other.parameters() if weight.requires_grad]


def test_four_bits_take_less_memory_than_the_weights(tiny):
    from slmops.models.adapters.four_bit import load_in_four_bits
    from slmops.train.memory import parameters_of, weights_bytes

    model = load_in_four_bits(tiny.folder, dtype=torch.float32, device="cpu")
    whole = load_model(tiny.folder)
    assert parameters_of(model) == parameters_of(whole)
    held = sum(weight.nbytes for weight in model.parameters())
    held += sum(
        part.nbytes
        for weight in model.parameters()
        if (state := getattr(weight, "quant_state", None)) is not None
        for part in (state.absmax, state.state2.absmax)
    )
    assert weights_bytes(model, settings("qlora").to_make) == pytest.approx(held, rel=0.01)
    assert held < 0.6 * sum(weight.nbytes for weight in whole.parameters())


def test_what_does_not_go_with_an_adapter_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="of `method: prompt`"):
        settings("prompt", adapter={"rank": 4})
    with pytest.raises(ValueError, match="round_to_int4"):
        TrainSettings.model_validate({"method": "lora", "round_to_int4": {}})
    with pytest.raises(BadInput, match="has room for"):
        tuned(tiny, tmp_path, "prompt", adapter={"tokens": 125})


def test_each_method_has_its_own_learning_rate_and_sizes():
    assert Tuning().learning_rate == Optimisation().learning_rate
    assert Tuning.model_validate({"method": "prompt"}).to_make.tokens == 16
    assert Tuning.model_validate({"method": "rslora", "adapter": {"rank": 8}}).to_make.alpha == 16
    assert Tuning.model_validate({"method": "lora", "learning_rate": 5e-4}).learning_rate == 5e-4
