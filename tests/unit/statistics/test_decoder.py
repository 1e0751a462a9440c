"""A model run stage by stage gives what the whole model gives, whatever its family."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from mergebench.errors import MergebenchError
from mergebench.merging.statistics.decoder import StagedDecoder
from mergebench.merging.statistics.hidden import HiddenStates

COMMON = {
    "vocab_size": 40,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
SLIDING = {"sliding_window": 4}
LLAMA_3 = {
    "rope_parameters": {
        "rope_type": "llama3",
        "rope_theta": 10000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    }
}
FAMILIES = {
    "llama": {"tie_word_embeddings": True},
    "llama-3": {"base": "llama", **LLAMA_3},
    "gemma": {},
    "gemma2": {"query_pre_attn_scalar": 16, **SLIDING},
    "mistral": SLIDING,
    "qwen2": {},
    "qwen3": {},
}


@pytest.fixture(params=FAMILIES)
def folder(request, tmp_path):
    from transformers import AutoConfig, AutoModelForCausalLM

    given = dict(FAMILIES[request.param])
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(given.pop("base", request.param), **COMMON | given))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(tmp_path)
    return tmp_path


def test_hidden_states_are_the_whole_model_s(folder):
    from transformers import AutoModelForCausalLM

    whole = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    weights = load_file(folder / "model.safetensors")
    decoder = StagedDecoder(folder)
    stages = decoder.stages(sorted(weights))
    assert sorted(name for stage in stages for name in stage) == sorted(weights)
    lengths = [9, 4]
    ids = torch.zeros(2, 9, dtype=torch.int64)
    for row, length in enumerate(lengths):
        ids[row, :length] = torch.randint(3, 40, (length,), generator=torch.Generator().manual_seed(row))
    expected: list[list[torch.Tensor]] = []  # of each row: the inputs of the three layers and of the norm
    for module in (*whole.model.layers, whole.model.norm):
        module.register_forward_pre_hook(lambda module, given: expected[-1].append(given[0][0]))
    whole.model.norm.register_forward_hook(lambda module, given, output: expected[-1].append(output[0]))
    for row, length in enumerate(lengths):
        expected.append([])
        with torch.no_grad():
            whole(ids[row : row + 1, :length])
    hidden = torch.empty(0)
    for stage, names in enumerate(stages[:-1]):
        with decoder.holding({name: weights[name] for name in names}):
            hidden = decoder.layer(stage, hidden) if stage else decoder.embed(ids)
        for row, length in enumerate(lengths):
            torch.testing.assert_close(hidden[row, :length], expected[row][stage], rtol=1e-4, atol=1e-5)
    with decoder.holding({name: weights[name] for name in stages[-1] if "norm" in name}):
        inputs = decoder.head_inputs(hidden)
    for row, length in enumerate(lengths):
        torch.testing.assert_close(inputs[row, :length], expected[row][4], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("folder", ["llama"], indirect=True)
def test_tensors_that_are_no_parameters_are_left_aside(folder):
    """Older checkpoints of Llama store their rotary frequencies."""
    weights = load_file(folder / "model.safetensors") | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)}
    decoder = StagedDecoder(folder)
    stages = decoder.stages(sorted(weights))
    with decoder.holding({name: weights[name] for name in stages[1]}):
        assert decoder.layer(1, torch.zeros(1, 2, 32)).shape == (1, 2, 32)
    assert not any("inv_freq" in name for name in decoder.linears(stages[1]))


@pytest.mark.parametrize("folder", ["gemma2"], indirect=True)
def test_an_incomplete_checkpoint_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    decoder = StagedDecoder(folder)
    with decoder.holding(weights), pytest.raises(MergebenchError, match=r"mlp\.up_proj\.weight of stage 2 was given no weight"):
        decoder.layer(2, torch.zeros(1, 2, 32))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_keep_their_places_whoever_writes_them(tmp_path, dtype):
    lengths = [3, 1, 700]
    hidden = torch.randn(3, 700, 5).to(dtype)
    first, second = (HiddenStates(tmp_path / "states", lengths, 5, dtype) for _ in range(2))
    second.write([2, 0], hidden[[2, 0]])
    first.write([1], hidden[1:2, :1])
    first.flush()
    found = HiddenStates(tmp_path / "states", lengths, 5, dtype).read([1, 0])
    assert torch.equal(found[0, :1], hidden[1, :1])
    assert torch.equal(found[1], hidden[0, :3])
    assert not found[0, 1:].any()
    assert torch.equal(second.read([2])[0], hidden[2])
