"""Checksums by which live weights are proven, and the names under which vLLM fuses them; no engine is needed."""

from types import SimpleNamespace

import pytest
import torch

from mergebench.errors import MergebenchError
from mergebench.evaluation.backends import weights
from mergebench.evaluation.backends.base import LanguageModel
from mergebench.evaluation.backends.probe import distance
from mergebench.evaluation.backends.vllm_weights import EngineWeights
from mergebench.evaluation.backends.vllm_worker import Expected, columns, fused_name
from mergebench.evaluation.backends.weights import MODULUS, checksum

LLAMA = {"qkv_proj": ["q_proj", "k_proj", "v_proj"], "gate_up_proj": ["gate_proj", "up_proj"]}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("width", [(), (1,), (5,), (6,), (8,), (64,)])
def test_the_checksum_of_a_fused_and_padded_parameter_is_that_of_its_parts(dtype, width):
    parts = [torch.randn(rows, *width, generator=torch.Generator().manual_seed(rows)).to(dtype) for rows in (3, 5, 1)]
    fused = torch.cat([*parts, torch.zeros(7, *width, dtype=dtype)])
    assert checksum(fused) == sum(map(checksum, parts)) % MODULUS


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_smallest_change_of_one_entry_changes_it(dtype):
    tensor = torch.ones(40, 50, dtype=dtype)
    changed = tensor.clone()
    changed[17, 3] = torch.nextafter(torch.tensor(1.0, dtype=dtype), torch.tensor(2.0, dtype=dtype))
    assert checksum(changed) != checksum(tensor)


def test_zeros_of_either_sign_are_the_same():
    assert checksum(torch.tensor([-0.0, 1.0])) == checksum(torch.tensor([0.0, 1.0]))


def test_pieces_do_not_matter(monkeypatch):
    tensors = [torch.randn(*shape, generator=torch.Generator().manual_seed(0)) for shape in ((1001,), (77, 6))]
    whole = [checksum(tensor) for tensor in tensors]
    monkeypatch.setattr(weights, "PIECE", {"cpu": 64})
    assert [checksum(tensor) for tensor in tensors] == whole


def test_a_view_has_the_checksum_of_its_copy():
    tensor = torch.randn(50, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert checksum(tensor.T) == checksum(tensor.T.contiguous())
    assert checksum(tensor[1:, 1:5]) == checksum(tensor[1:, 1:5].contiguous())


def test_expectations_add_up_by_the_parameter_that_tensors_become_part_of():
    model = SimpleNamespace(packed_modules_mapping=LLAMA, parameters=lambda: iter([torch.zeros(1)]))
    expected = Expected(model, torch.device("cpu"))
    given = {f"model.layers.0.self_attn.{name}_proj.weight": torch.randn(4, 40).bfloat16() for name in "qkv"}
    given["model.embed_tokens.weight"] = torch.randn(9, 40).bfloat16()
    passed = dict(expected.noting(given.items()))
    assert all(torch.equal(passed[name], tensor) for name, tensor in given.items())
    fused = torch.cat([tensor.float() for name, tensor in given.items() if "attn" in name])
    name = "model.layers.0.self_attn.qkv_proj.weight"
    assert expected.whole[name] == checksum(fused)
    assert expected.sampled[name] == checksum(fused[:, columns(40)])
    assert expected.source("lm_head.weight") == "model.embed_tokens.weight"
    assert expected.source("model.norm.weight") is None


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("model.layers.3.self_attn.k_proj.weight", "model.layers.3.self_attn.qkv_proj.weight"),
        ("model.layers.3.self_attn.k_proj.bias", "model.layers.3.self_attn.qkv_proj.bias"),
        ("model.layers.0.mlp.up_proj.weight", "model.layers.0.mlp.gate_up_proj.weight"),
        ("model.layers.0.mlp.down_proj.weight", "model.layers.0.mlp.down_proj.weight"),
        ("model.norm.weight", "model.norm.weight"),
    ],
)
def test_names_of_fused_parameters(name, fused):
    assert fused_name(SimpleNamespace(packed_modules_mapping=LLAMA), name) == fused


@pytest.mark.parametrize("width", [1, 3, 16, 17, 4096])
def test_the_columns_that_are_read_back_are_different_and_reach_both_ends(width):
    chosen = columns(width).tolist()
    assert len(set(chosen)) == len(chosen) == min(16, width)
    assert chosen[0] == 0
    assert chosen[-1] == width - 1


def test_numbers_that_are_not_finite_are_only_like_themselves():
    nan, inf = float("nan"), float("inf")
    assert distance((1.0, nan, -inf), (1.0, nan, -inf)) == 0
    assert distance((1.0, nan), (1.0, 0.0)) == inf
    assert distance((-inf,), (-3.0,)) == inf
    assert distance((1.0, 2.0), (1.5, 2.0)) == 0.5


def test_a_backend_that_cannot_swap_says_so():
    with pytest.raises(MergebenchError, match="cannot replace the weights"):
        LanguageModel.live(SimpleNamespace(name="other"))


@pytest.mark.parametrize(("processes", "quantised", "says"), [(2, None, "spread over 2 processes"), (1, "fp8", "quantised")])
def test_engines_that_are_refused(processes, quantised, says):
    parallel, model = SimpleNamespace(world_size=processes), SimpleNamespace(quantization=quantised)
    engine = SimpleNamespace(vllm_config=SimpleNamespace(parallel_config=parallel, model_config=model))
    with pytest.raises(MergebenchError, match=says):
        EngineWeights(SimpleNamespace(llm_engine=engine))
