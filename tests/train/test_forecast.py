"""What a training is expected to take is near what it takes, each in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from transformers import LlamaConfig, LlamaForCausalLM

from slmops.train.examples import Example
from slmops.train.forecast import forecast
from tests.train.test_adapters import settings
from tests.train.test_trainer import examples

SHAPE = {"hidden_size": 384, "intermediate_size": 1152, "num_hidden_layers": 6, "num_attention_heads": 6}

TRAINED = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from tests.train import test_forecast
from tests.train.test_forecast import settings
from slmops.train.trainer import train
moved = settings(sys.argv[3], epochs=1, batch_tokens=int(sys.argv[6]))
rows = getattr(test_forecast, sys.argv[5])()
trained = train(Path(sys.argv[2]), rows, moved, adapter=moved.to_make, work=Path(sys.argv[4]), seed=1)
print(json.dumps(trained.figures))
"""


def long_examples() -> list[Example]:
    """Rows of 128 tokens, eight in a batch, for two steps: the optimiser's state is there from the second on."""
    return [Example(e.prompt * 14, e.answer * 4) for e in examples()[:16]]


def alike_examples() -> list[Example]:
    """Rows of 136 tokens of which the first 88 are those of all: read once, a batch takes half of the memory.

    So many, that it is not the memory of the process around the training.
    """
    rows = [row for seed in range(3) for row in examples(seed=seed)]
    return [Example((5, 6, 7, 8) * 22 + row.prompt * 4, row.answer * 4) for row in rows]


@pytest.fixture(scope="module")
def medium(tmp_path_factory) -> Path:
    """A random model of 15 million weights: large enough that its memory is not the interpreter's."""
    folder = tmp_path_factory.mktemp("medium")
    LlamaForCausalLM(LlamaConfig(**SHAPE, vocab_size=4096, max_position_embeddings=256)).save_pretrained(folder)
    return folder


METHODS = ["full", "lora", "qlora", "dora", "ia3", "bottleneck", "prompt"]


@pytest.mark.parametrize(
    ("method", "rows", "batch_tokens"),
    [
        *((method, long_examples, 1024) for method in METHODS),
        ("full", alike_examples, 5000),
        ("lora", alike_examples, 5000),
    ],
)
def test_the_memory_is_within_a_fifth_of_what_was_expected(medium, tmp_path, method, rows, batch_tokens):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", TRAINED, str(root), str(medium), method, str(tmp_path)]
    command += [rows.__name__, str(batch_tokens)]
    # Else glibc keeps freed pieces of this size, and the process holds far more than the training has.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "262144"}
    done = subprocess.run(command, cwd=root, env=environment, check=True, capture_output=True, text=True)
    figures = json.loads(done.stdout.splitlines()[-1])
    moved = settings(method, epochs=1, batch_tokens=batch_tokens)
    told = forecast(medium, rows(), moved, moved.to_make, seed=1)
    assert told.memory.total == figures["estimated_memory_bytes"]
    assert told.trainable == figures["trainable_parameters"]
    assert told.parameters == figures["parameters"]
    assert told.seconds > 0
    assert figures["peak_memory_bytes"] == pytest.approx(told.memory.total, rel=0.2)


def test_each_of_several_processes_holds_a_part_of_what_is_shared_out(medium):
    moved = settings("full", epochs=1, batch_tokens=1024, accumulate=4)
    one, both, shared = (
        forecast(medium, long_examples(), moved, None, seed=1, **more)
        for more in ({}, {"processes": 4}, {"processes": 4, "shared_out": True})
    )
    assert (both.memory, both.steps) == (one.memory, one.steps)
    assert shared.processes == 4
    assert shared.memory.optimiser == one.memory.optimiser // 4
    assert shared.memory.gradients == one.memory.gradients // 4
    assert shared.memory.activations == one.memory.activations
    assert one.memory.weights // 4 < shared.memory.weights < one.memory.weights
