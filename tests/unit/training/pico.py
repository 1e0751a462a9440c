"""Two-layer random models with a small tokenizer, and rows that they can learn."""

import json
from pathlib import Path
from typing import Any

import pytest

from mergebench.artifacts import Job, inventory

SPECIAL = ["<pad>", "<bos>", "<eos>", "<unk>"]
PICO_TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "### Response:\n{% else %}{{ m['content'] }}{{ eos_token }}{% endif %}{% endfor %}"
)


def pico_tokenizer():
    """One token per character of a small alphabet; adds a beginning-of-sequence token by itself, as Llama-3 does."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    alphabet = "\n #+-=.:?,_abcdefghijklmnopqrstuvwxyzIRTW0123456789"
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    core.decoder = decoders.Fuse()
    core.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<bos>",
        eos_token="<eos>",
        pad_token="<pad>",
        unk_token="<unk>",
        chat_template=PICO_TEMPLATE,
    )


def write_pico(folder: Path, family: str, seed: int = 0) -> Path:
    """A weights folder with a random model of the family (``llama``, untied; ``gemma2``, tied)."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    tokenizer = pico_tokenizer()
    common = {
        "vocab_size": len(tokenizer),
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 16,
        "max_position_embeddings": 128,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    torch.manual_seed(seed)
    if family == "llama":
        model = LlamaForCausalLM(LlamaConfig(**common, tie_word_embeddings=False))
    else:
        model = Gemma2ForCausalLM(Gemma2Config(**common, query_pre_attn_scalar=16, sliding_window=64))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session", params=["llama", "gemma2"])
def pico_base(request, tmp_path_factory) -> Path:
    """Weights folder of a random base, one of each family."""
    return write_pico(tmp_path_factory.mktemp(request.param) / "models" / "base" / "weights", request.param)


@pytest.fixture(scope="session")
def pico_llama(tmp_path_factory) -> Path:
    """Weights folder of a random Llama base."""
    return write_pico(tmp_path_factory.mktemp("llama") / "models" / "base" / "weights", "llama")


def sums(count: int, start: int = 0) -> list[dict[str, str]]:
    """Rows that ask for a one-digit sum."""
    pairs = [(a, b) for a in range(10) for b in range(10)]
    return [
        {"id": f"sum-{i}", "prompt": f"{a}+{b}=?", "response": f"#### {a + b}", "answer": str(a + b)}
        for i, (a, b) in enumerate(pairs[start : start + count])
    ]


def words(count: int) -> list[dict[str, str]]:
    """Rows that ask to repeat a word."""
    return [{"id": f"word-{i}", "prompt": f"repeat {'abc'[i % 3] * 3}", "response": "abc"[i % 3] * 3} for i in range(count)]


def write_rows(folder: Path, rows: list[dict[str, str]], calibration: list[dict[str, str]] | None = None) -> Path:
    """A data folder with training (and calibration) rows; returns its manifest."""
    folder.mkdir(parents=True)
    for name, part in (("train", rows), ("calibration", calibration or [])):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in part))
    listed = inventory(folder / "calibration.jsonl") if calibration else {}
    (folder / "manifest.json").write_text(json.dumps({"dataset": folder.name, "files": listed}))
    return folder / "manifest.json"


def sft_spec(steps: int = 12, **settings: Any) -> dict[str, Any]:
    """The spec of a short SFT run of the math specialist."""
    return {
        "base": "pico",
        "model": "specialist_math",
        "algorithm": "sft",
        "domains": ["math"],
        "settings": {"steps": steps, "batch_size": 8, "learning_rate": 3e-3, "max_length": 64, "log_every": 2} | settings,
        "seed": 1,
    }


def training_job(spec: dict[str, Any], out: Path, state: Path, **inputs: Any) -> Job:
    """A training job that publishes into `out`."""
    outputs = {"weights": out / "weights", "log": out / "losses.jsonl", "manifest": out / "manifest.json"}
    return Job("train", spec, inputs, outputs, state)
