"""Random models of the two families, smaller than tiny, with a tokenizer trained on a few sentences."""

from pathlib import Path

import pytest

SENTENCES = [
    "The capital of France is Paris. The answer is 42.",
    "Question: Which city? Answer: Berlin, Madrid or Moscow.",
    "def add(a, b): return a + b",
    "I cannot help with that request. Sure, here is how.",
    "Un deux trois, eins zwei drei, uno dos tres.",
] * 4
TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}### Instruction:\n{{ m['content'] }}\n\n"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}"
)


def make_tokenizer():
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<pad>", "<bos>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    inner.train_from_iterator(SENTENCES, trainer)
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", 1)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", padding_side="left"
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def make_model(family: str):
    """A random model with large weights, so that its choices are clear and differ between prompts."""
    import torch
    from transformers import Gemma2Config, Gemma2ForCausalLM, LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    shape = {
        "vocab_size": 400,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 256,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 0,
        "initializer_range": 0.3,
    }
    if family == "llama":
        config, kind = LlamaConfig(**shape, attn_implementation="sdpa"), LlamaForCausalLM
    else:
        # A window shorter than the prompts makes the sliding layers differ from the full ones.
        config, kind = Gemma2Config(**shape, sliding_window=16, attn_implementation="eager"), Gemma2ForCausalLM
    return kind(config).eval()


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session", params=["llama", "gemma2"])
def model(request):
    return make_model(request.param)


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a random Llama."""
    folder = tmp_path_factory.mktemp("model") / "weights"
    make_model("llama").save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``<benchmark>/rows.jsonl`` and a manifest for every benchmark."""
    import json

    from tests.unit.evaluation.rows import ROWS

    root = tmp_path_factory.mktemp("data")
    for name, found in ROWS.items():
        (root / name).mkdir()
        (root / name / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
        (root / name / "manifest.json").write_text(json.dumps({"source": "local"}))
    return root
