"""Synthetic checkpoints with the shapes of Llama: a base and fine-tunes near it, in bfloat16."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np

from mergebench.kernels.blocks import load_bfloat16, store_bfloat16

# Parameters -> hidden size, intermediate size, layers, heads, key and value heads. Heads are untied, the vocabulary is Llama 2's.
SIZES = {"0.2B": (1024, 2816, 12, 16, 8), "1B": (2048, 5632, 22, 32, 4)}
VOCABULARY = 32_000

# Standard deviations of the base's weights, and of what fine-tuning adds: learning rates around 1e-5 move weights of language models
# by some 1e-4, which bfloat16 resolves badly, and merging has to cope with.
BASE, MOVED = 0.02, 5e-4

# Random numbers are drawn once and read from a random place of this pool.
POOL, PIECE = 1 << 23, 1 << 20


def shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Tensor names and shapes of a Llama of one of `SIZES`."""
    hidden, intermediate, layers, heads, groups = SIZES[size]
    narrow = hidden // heads * groups
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCABULARY, hidden), "model.norm.weight": (hidden,)}
    for layer in range(layers):
        prefix = f"model.layers.{layer}"
        found |= {
            f"{prefix}.input_layernorm.weight": (hidden,),
            f"{prefix}.post_attention_layernorm.weight": (hidden,),
            f"{prefix}.self_attn.q_proj.weight": (hidden, hidden),
            f"{prefix}.self_attn.k_proj.weight": (narrow, hidden),
            f"{prefix}.self_attn.v_proj.weight": (narrow, hidden),
            f"{prefix}.self_attn.o_proj.weight": (hidden, hidden),
            f"{prefix}.mlp.gate_proj.weight": (intermediate, hidden),
            f"{prefix}.mlp.up_proj.weight": (intermediate, hidden),
            f"{prefix}.mlp.down_proj.weight": (hidden, intermediate),
        }
    return found | {"lm_head.weight": (VOCABULARY, hidden)}


def parameters(size: str) -> int:
    """Parameters of a model."""
    return sum(int(np.prod(shape)) for shape in shapes(size).values())


def write_family(folder: Path, size: str, specialists: int = 5) -> tuple[Path, list[Path]]:
    """A base and its fine-tunes, each a folder with one file; those that are there already are kept."""
    base = folder / "base"
    if not (base / "config.json").exists():
        _write(base, size, np.random.default_rng(0), None)
    made = []
    for number in range(specialists):
        made.append(folder / f"specialist_{number}")
        if not (made[-1] / "config.json").exists():
            _write(made[-1], size, np.random.default_rng(number + 1), base)
    return base, made


def write_tokenizer(folder: Path, size: int = VOCABULARY) -> None:
    """A tokenizer of words, into a folder of weights."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<pad>", "<bos>", "<eos>", "<unk>", *(f"t{i}" for i in range(4, size))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    template = (
        "{{ bos_token }}{% for m in messages %} {{ m['content'] }}{% if m['role'] != 'user' %} {{ eos_token }}{% endif %}{% endfor %}"
    )
    PreTrainedTokenizerFast(
        tokenizer_object=core, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>", chat_template=template
    ).save_pretrained(folder)


def _write(folder: Path, size: str, random: np.random.Generator, base: Path | None) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pool = random.standard_normal(POOL, dtype=np.float32)
    header, total = _header(shapes(size))
    origin = np.memmap(base / "model.safetensors", np.uint16, "r", offset=len(header)) if base else None
    before, rounded = np.zeros(PIECE, np.float32), np.empty(PIECE, np.uint16)
    with (folder / "model.safetensors").open("wb") as file:
        file.write(header)
        for start in range(0, total, PIECE):
            count = min(PIECE, total - start)
            place = int(random.integers(POOL - PIECE))
            if origin is not None:
                load_bfloat16(np.array(origin[start : start + count]), before[:count])
            store_bfloat16(before[:count], pool[place : place + count], MOVED if base else BASE, rounded[:count])
            file.write(rounded[:count].tobytes())
    (folder / "config.json").write_text(json.dumps(_config(size), indent=1), encoding="utf-8")


def _header(layout: dict[str, tuple[int, ...]]) -> tuple[bytes, int]:
    entries: dict[str, object] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in layout.items():
        end = position + 2 * int(np.prod(shape))
        entries[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, end]}
        position = end
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text, position // 2


def _config(size: str) -> dict[str, object]:
    hidden, intermediate, layers, heads, groups = SIZES[size]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": VOCABULARY,
        "max_position_embeddings": 2048,
        "rms_norm_eps": 1e-5,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
    }
