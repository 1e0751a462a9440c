"""Model folders as the hub has them, as bytes."""

import json
import struct


def safetensors(tensors: dict[str, tuple[int, ...]]) -> bytes:
    """Zero tensors in bfloat16 in the safetensors format, without the library."""
    header, position = {}, 0
    for name, shape in tensors.items():
        size = 2
        for extent in shape:
            size *= extent
        header[name] = {"dtype": "BF16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(position)


def model(width: int = 4096) -> dict[str, bytes]:
    """Files of a model: 8 tokens, one norm, two shards, and what a base does not need."""
    first, second = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    index = {"weight_map": {"model.embed_tokens.weight": first, "model.norm.weight": second}}
    return {
        "config.json": json.dumps({"architectures": ["LlamaForCausalLM"], "tie_word_embeddings": True, "vocab_size": 8}).encode(),
        "tokenizer.json": json.dumps({"model": {"vocab": {str(i): i for i in range(8)}}, "added_tokens": []}).encode(),
        "tokenizer_config.json": b"{}",
        "model.safetensors.index.json": json.dumps(index).encode(),
        first: safetensors({"model.embed_tokens.weight": (8, width)}),
        second: safetensors({"model.norm.weight": (width,)}),
        "pytorch_model.bin": b"pickled" * 400,
        "README.md": b"# A model",
        "original/consolidated.safetensors": b"not this one" * 200,
    }
