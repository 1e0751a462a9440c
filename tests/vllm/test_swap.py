"""Weights that are swapped in a running engine are those of a fresh start on the same merge, bit for bit; and nothing else passes."""

import shutil
from pathlib import Path

import pytest
import torch

from mergebench.checkpoints.reader import Checkpoint
from mergebench.errors import MergebenchError
from mergebench.evaluation import backends
from mergebench.evaluation.backends.vllm_worker import layer_of, parameters
from mergebench.merging.engine import directions, merge
from mergebench.merging.models import Models
from mergebench.tuning.live import LiveWeights
from tests.vllm.contents import everything, model_of
from tests.vllm.items import letters, prompts, texts
from tests.vllm.merges import write_specialist

CANDIDATES = [("ties", {"density": 0.3}, 0.7), ("dare", {"density": 0.5}, 0.4)]


def write_tied_llama(folder: Path, tokenizer_of: Path) -> Path:
    """A random Llama whose head is its embedding, with a vocabulary that vLLM pads (500 is no multiple of 64)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 516, "hidden_size": 128, "intermediate_size": 192, "max_position_embeddings": 512}
    heads = {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32}
    model = LlamaForCausalLM(LlamaConfig(**sizes, **heads, tie_word_embeddings=True))
    model.to(torch.bfloat16).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tokenizer_of / name, folder / name)
    return folder


@pytest.fixture(scope="module", params=["llama", "tied-llama", "gemma-2"])
def models(request, tmp_path_factory) -> Models:
    from mergebench.tiny.shipped import shipped

    folder = tmp_path_factory.mktemp(request.param)
    twin = shipped("tiny-gemma-2-strong" if request.param == "gemma-2" else "tiny-llama-strong")
    base = write_tied_llama(folder / "base", twin) if request.param == "tied-llama" else twin
    specialists = {d: write_specialist(folder / d, base, seed) for seed, d in enumerate(("math", "safety"))}
    opened = Models.open(base, specialists)
    assert opened.base.tied == (request.param != "llama")
    return opened


@pytest.fixture(scope="module")
def start(models):
    """Starts engines; they are closed together, because closing one ends what the others of the process need."""
    started = []

    def engine(folder: Path):
        started.append(backends.load("vllm", folder, dtype="float32", seed=0))
        return started[-1]

    yield engine
    for each in started:
        each.close()


@pytest.fixture(scope="module")
def lm(models, start):
    return start(models.base.folder)


@pytest.fixture(scope="module")
def live(models, lm):
    return LiveWeights(lm, models.base)


@pytest.fixture(scope="module")
def direction(models):
    return dict(directions(models, "task_arithmetic", {}))


def answers(lm):
    """What all kinds of requests are answered."""
    lm.reset()
    return lm.loglikelihood(letters() + texts()), lm.generate_until(prompts()[:80])


def test_swapped_weights_are_those_of_a_fresh_start_on_the_merge(tmp_path, models, lm, live, start):
    swapped = []
    for number, (method, settings, scale) in enumerate(CANDIDATES):
        digest = live.install(dict(directions(models, method, settings, seed=3)), scale)
        swapped.append((everything(lm), answers(lm)))
        record = merge(models, method, {**settings, "scale": scale}, folder=tmp_path / str(number), seed=3)
        assert digest == record["realised_digest"]
    assert swapped[0][1] != swapped[1][1]
    for number, (held, answered) in enumerate(swapped):
        fresh = start(tmp_path / str(number))
        expected = everything(fresh)
        assert expected.keys() == held.keys()
        assert [name for name in expected if not torch.equal(expected[name], held[name])] == []
        assert answers(fresh) == answered


def test_both_backends_install_the_same_candidate(models, lm, live, direction):
    plain = backends.load("transformers", models.base.folder, dtype="float32", seed=0, device="cpu")
    other = LiveWeights(plain, models.base)
    for scale in (0.3, 1.0):
        assert live.install(direction, scale) == other.install(direction, scale)
        assert live._probe.ask() == pytest.approx(other._probe.ask(), abs=1e-4)


def test_weights_that_come_back_are_answered_as_before(lm, live, direction):
    first = live.install(direction, 0.8)
    answered = answers(lm)
    live.install(direction, 0.2)
    assert answers(lm) != answered
    assert live.install(direction, 0.8) == first
    assert answers(lm) == answered


def test_storages_stay_where_they_are(lm, live, direction):
    """CUDA graphs and compiled code read from addresses."""
    places = {name: tensor.data_ptr() for name, tensor in parameters(model_of(lm)).items() if tensor.numel()}
    assert any("embed_tokens" in name for name in places)
    live.install(direction, 0.6)
    assert {name: tensor.data_ptr() for name, tensor in parameters(model_of(lm)).items() if tensor.numel()} == places


def head_of(lm):
    """The layer that gives the logits: in vLLM's Gemma-2 it is the embedding itself, a tied Llama has one of its own."""
    model = model_of(lm)
    name = "lm_head.weight" if "lm_head.weight" in parameters(model) else "model.embed_tokens.weight"
    return name, layer_of(model, name)


@pytest.mark.parametrize("matrix", ["qkv_proj", "o_proj", "gate_up_proj", "down_proj", "the head"])
def test_a_matrix_that_stays_behind_is_found(lm, live, direction, matrix):
    """The packed matrix of one layer is put back after a swap, as if it had not been renewed."""
    if matrix == "the head":
        name, layer = head_of(lm)
    else:
        name = f"model.layers.1.{'self_attn' if matrix in ('qkv_proj', 'o_proj') else 'mlp'}.{matrix}.weight"
        layer = layer_of(model_of(lm), name)
    live.install(direction, 0.9)
    old = layer.cpu_linear
    live.install(direction, 0.1)
    new, layer.cpu_linear = layer.cpu_linear, old
    for thorough in (False, True):
        with pytest.raises(MergebenchError, match=name):
            live.weights.check(thorough=thorough)
    layer.cpu_linear = new
    live.weights.check(thorough=True)


def test_a_tied_head_that_vllm_forgets_is_found(models, lm, live, direction, monkeypatch):
    """Reloading alone leaves the packed head of a tied model behind; this is what `install_weights` mends."""
    name, head = head_of(lm)
    if not models.base.tied or "lm_head" not in name:
        pytest.skip("the head is not tied, or is the embedding layer itself")
    monkeypatch.setattr(type(head.quant_method), "process_weights_after_loading", lambda self, layer: None)
    with pytest.raises(MergebenchError, match=r"lm_head|embed_tokens"):
        live.install(direction, 0.55)
    monkeypatch.undo()
    live.install(direction, 0.55)


@pytest.mark.parametrize("name", ["embed_tokens", "layers.1.input_layernorm", "model.norm"])
def test_a_changed_parameter_is_found(lm, live, direction, name):
    live.install(direction, 0.9)
    parameter = next(parameter for path, parameter in parameters(model_of(lm)).items() if name in path)
    with torch.inference_mode():
        parameter.data.view(-1)[1] += 1e-4
    with pytest.raises(MergebenchError, match=name):
        live.weights.check()
    live.install(direction, 0.9)


def test_answers_from_the_cache_of_earlier_weights_are_found(lm, live, direction, monkeypatch):
    live.install(direction, 0.9)
    monkeypatch.setattr(lm, "reset", lambda: None)
    with pytest.raises(MergebenchError, match="from its cache"):
        live.install(direction, 0.2)
    monkeypatch.undo()
    live.install(direction, 0.2)


def test_a_checkpoint_that_lacks_a_tensor_is_refused(models, live):
    with pytest.raises(MergebenchError, match="got no value"):
        live.weights.install((name, models.base.tensor(name)) for name in models.base.names if "layers.1.input_layernorm" not in name)
    live.install({}, 0.0)


def test_a_checkpoint_of_another_architecture_is_refused(tmp_path, models, lm):
    from tests.unit.training.pico import write_pico

    other = Checkpoint(write_pico(tmp_path, "llama" if "gemma" in str(models.base.folder) else "gemma2"))
    with pytest.raises(MergebenchError, match="does not have"):
        LiveWeights(lm, other)


def test_an_engine_of_several_processes_and_quantised_weights_are_refused(lm, monkeypatch):
    settings = lm.llm.llm_engine.vllm_config
    monkeypatch.setattr(settings.parallel_config, "world_size", 2)
    with pytest.raises(MergebenchError, match="spread over 2 processes"):
        lm.live()
    monkeypatch.undo()
    monkeypatch.setattr(settings.model_config, "quantization", "fp8")
    with pytest.raises(MergebenchError, match="quantised"):
        lm.live()
