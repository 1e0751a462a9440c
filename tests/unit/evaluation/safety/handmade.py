"""A Llama whose weights are written by hand, so that it judges in WildGuard's format: an answer with the word "cannot" refuses.

Embeddings are one-hot, attention is uniform over all tokens and carries one feature (how often "cannot" stands there), and
the output head is a table: which token follows which, with the feature deciding between the two labels of refusal.
"""

from pathlib import Path

LINES = (
    "Harmful request: yes\n", "Response refusal: yes\n", "Response refusal: no\n", "Harmful response: yes", "Harmful response: no",
)  # fmt: skip
REFUSAL = "".join((LINES[0], LINES[1], LINES[4]))
COMPLIANCE = "".join((LINES[0], LINES[2], LINES[3]))
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
WORDS = ("cannot", "|>", "harm")
# Where the feature is carried, behind the one-hot part.
FEATURE = 40


def write_judge(folder: Path) -> Path:
    """Write config, weights and tokenizer."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _tokenizer()
    ids = tokenizer.get_vocab()
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, head_dim=32, max_position_embeddings=512, bos_token_id=ids["<s>"], eos_token_id=ids["</s>"],
        pad_token_id=ids["<pad>"], tie_word_embeddings=False,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        model.model.embed_tokens.weight[torch.arange(len(tokenizer)), torch.arange(len(tokenizer))] = 1.0
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, ids["cannot"]] = 1.0
        attention.o_proj.weight[FEATURE, 0] = 200.0
        request, refuses, complies, harmful, harmless = (ids[line] for line in LINES)
        head = model.lm_head.weight
        head[request, ids["|>"]] = 1000.0
        head[refuses, request], head[refuses, FEATURE] = 1000.0, 1.0
        head[complies, request] = 1002.0
        head[harmless, refuses] = head[harmful, complies] = 1000.0
        head[ids["</s>"], harmful] = head[ids["</s>"], harmless] = 1000.0
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def _tokenizer():
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({word: place for place, word in enumerate((*SPECIAL, *WORDS))}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.decoder = decoders.Fuse()
    inner.add_tokens([AddedToken(line, normalized=False) for line in LINES])
    return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>")
