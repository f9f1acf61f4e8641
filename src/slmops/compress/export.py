"""From a Hugging Face folder to an onnxruntime-genai model in float32, with the builder that comes with the runtime."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
from pathlib import Path
from typing import Any

from slmops import child
from slmops.errors import BadInput, SlmopsError
from slmops.models.source import CONFIG, TOKENIZER_FILES
from slmops.models.tag_files import TAGS, WEIGHTS

TESTED = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM", "Phi3ForCausalLM", "Gemma3ForCausalLM")
"""Architectures that are exported, packed and compared with PyTorch in the tests; SmolLM is a Llama."""

_HEAD_STEP = 16

CONTEXT_TOKENS = 2048
"""The key-value cache is allocated for this many tokens at most; engines take less for shorter requests."""


def export(model: Path, out: Path, *, scratch: Path) -> None:
    """Write the model in folder `model` to `out` in float32, with its tokenizer, and its labelling head if it has one.

    The builder runs in a process of its own, so that its memory is given back and its prints stay out of ours.
    What it says when it fails goes to the log.

    Raises:
        BadInput: the builder does not know this architecture.
        SlmopsError: the builder failed; the last line it wrote is in the message.
    """
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    _check(config)
    source = _as_the_builder_reads(model, config, scratch / "source")
    arguments = ["-i", str(source), "-o", str(out), "-c", str(scratch), "-p", "fp32", "-e", "cpu"]
    # A cache of a window's last tokens alone can neither hold a padded batch nor be wound back.
    # The last hidden states go out beside the logits: they are what texts are compared by.
    arguments += ["--extra_options", "hf_token=false", "windowed_kv_cache=false", "include_hidden_states=true"]
    command = child.command("onnxruntime_genai.models.builder", *arguments)
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own arguments
    if done.returncode:
        logging.getLogger(__name__).error("the model builder of onnxruntime-genai said:\n%s", done.stderr)
        last = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        if "not currently supported" in last or "NotImplementedError" in last:
            raise BadInput(
                f"onnxruntime-genai cannot export {config.get('architectures')}: {last}",
                hint=f"known to work: {', '.join(TESTED)}",
            )
        raise SlmopsError(f"the export to ONNX failed: {last}", hint="look into the run's log for all it said")
    for name in (CONFIG, *TOKENIZER_FILES, TAGS, WEIGHTS):
        if (model / name).exists():
            shutil.copyfile(model / name, out / name)
    _limit_context(out / "genai_config.json")


def _as_the_builder_reads(model: Path, config: dict[str, Any], folder: Path) -> Path:
    """The model with its rotary settings told as of old too, for that is where the builder looks.

    Of several kinds of layer, as in Gemma 3, it looks for one kind at the top and for the base of sliding layers under
    its former name; and for the type of scaled positions, as in Phi-4-mini, likewise. transformers, which loads the
    weights, looks at the settings as they were.
    """
    rotary = config.get("rope_parameters") or {}
    whole, sliding = rotary.get("full_attention"), rotary.get("sliding_attention")
    if whole and sliding:
        if scaled := [each["rope_type"] for each in (whole, sliding) if each["rope_type"] != "default"]:
            raise BadInput(
                f"onnxruntime-genai cannot export {config.get('architectures')}: it would scale rotary positions of "
                f"every kind of layer as those of one ({scaled[0]})",
                hint="a teacher can write without an export: teach.engine: transformers",
            )
        told = whole | {"rope_local_base_freq": sliding["rope_theta"]}
    elif rotary.get("rope_type", "default") != "default" and "type" not in rotary:
        told = {"type": rotary["rope_type"]}
    else:
        return model
    folder.mkdir(parents=True, exist_ok=True)
    for file in model.iterdir():
        (folder / file.name).unlink(missing_ok=True)
        (folder / file.name).symlink_to(file.absolute())
    (folder / "config.json").unlink()
    (folder / "config.json").write_text(json.dumps(config | {"rope_parameters": rotary | told}), encoding="utf-8")
    return folder


def _check(config: dict[str, Any]) -> None:
    """Refuse what the runtime's attention would refuse when it is run."""
    size = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    if size % _HEAD_STEP:
        raise BadInput(
            f"onnxruntime-genai cannot run heads of {size} features: they must be a multiple of {_HEAD_STEP}",
            hint="take a model with other heads, or one that is cut in their number (student.carve.heads)",
        )


def _limit_context(path: Path) -> None:
    """Keep the default cache small: the builder sets it to the whole context, which is allocated at once."""
    config = json.loads(path.read_text(encoding="utf-8"))
    context = min(CONTEXT_TOKENS, config["model"]["context_length"])
    config["search"]["max_length"] = context
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
