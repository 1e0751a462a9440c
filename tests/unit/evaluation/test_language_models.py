"""Our batched language model against lm-eval's own transformers backend, and its further promises."""

import pytest
import torch
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergebench.errors import MergebenchError
from mergebench.evaluation import language_models
from mergebench.evaluation.language_models import TransformersLanguageModel

CONTEXTS = [
    "Question: Which city?\nAnswer:",
    "The capital of France is",
    "Un deux trois",
    "def add(a, b): return a + b. " * 3 + "The answer is",
    "I cannot help with that request. Sure, here is how one could do it, step by step:",
]
CHOICES = [" Paris", " Berlin, Madrid or Moscow", " 42.", " x"]


def asked(kind: str, *arguments) -> Instance:
    return Instance(request_type=kind, doc={}, arguments=arguments, idx=0, metadata=("t", 0, 1))


def choices() -> list[Instance]:
    return [asked("loglikelihood", context, choice) for context in CONTEXTS for choice in CHOICES]


def prompts(**arguments) -> list[Instance]:
    settings = {"until": ["Paris", "\n\n"], "max_gen_toks": 24, "do_sample": False, **arguments}
    return [asked("generate_until", context, settings) for context in CONTEXTS]


@pytest.fixture
def ours(model, tokenizer):
    return TransformersLanguageModel(model, tokenizer, batch_tokens=256)


@pytest.fixture
def stock(model, tokenizer):
    return HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2)


def test_loglikelihoods_equal_those_of_lm_eval(ours, stock):
    expected = stock.loglikelihood(choices(), disable_tqdm=True)
    found = ours.loglikelihood(choices())
    assert [g for _, g in found] == [g for _, g in expected]
    assert [v for v, _ in found] == pytest.approx([v for v, _ in expected], abs=1e-4)


def test_greedy_choices_are_recognised(ours):
    [text] = ours.generate_until([asked("generate_until", CONTEXTS[0], {"until": [], "max_gen_toks": 1})])
    found = ours.loglikelihood([asked("loglikelihood", CONTEXTS[0], text), asked("loglikelihood", CONTEXTS[0], " x")])
    assert [greedy for _, greedy in found] == [True, text == " x"]


def test_generations_equal_those_of_lm_eval(ours, stock):
    assert ours.generate_until(prompts()) == stock.generate_until(prompts(), disable_tqdm=True)


def test_batching_does_not_change_an_answer(model, tokenizer):
    alone = TransformersLanguageModel(model, tokenizer, batch_tokens=1)
    together = TransformersLanguageModel(model, tokenizer, batch_tokens=100_000)
    assert alone.generate_until(prompts()) == together.generate_until(prompts())
    assert [v for v, _ in alone.loglikelihood(choices())] == pytest.approx([v for v, _ in together.loglikelihood(choices())], abs=1e-4)


def test_mixed_limits_in_one_call(ours):
    short = prompts(max_gen_toks=3)
    both = ours.generate_until([*short, *prompts()])
    assert both == ours.generate_until(short) + ours.generate_until(prompts())


def test_stop_strings_are_cut_and_unfinished_answers_reported(ours):
    [whole] = ours.generate_until(prompts(until=[])[:1])
    assert ours.unfinished == {CONTEXTS[0]}
    ours.unfinished.clear()
    stop = whole[5:8]
    [cut] = ours.generate_until(prompts(until=[stop])[:1])
    assert cut == whole.split(stop)[0]
    assert not ours.unfinished


def test_exactly_one_bos_with_and_without_the_chat_template(ours, tokenizer):
    rendered = ours.apply_chat_template([{"role": "user", "content": "Which city?"}])
    assert rendered == "<bos>### Instruction:\nWhich city?\n\n### Response:\n"
    for text in (rendered, "Which city?", "<bos><bos>Which city?"):
        [ids] = ours.encode([text])
        assert ids[0] == tokenizer.bos_token_id
        assert ids.count(tokenizer.bos_token_id) == 1


def test_missing_chat_template_is_explained(model):
    import copy

    from tests.unit.evaluation.conftest import make_tokenizer

    bare = copy.copy(make_tokenizer())
    bare.chat_template = None
    with pytest.raises(MergebenchError, match="has no chat template"):
        TransformersLanguageModel(model, bare).apply_chat_template([{"role": "user", "content": "x"}])


def test_sampling_is_seeded_and_independent_of_the_batch(model, tokenizer):
    sampled = prompts(do_sample=True, temperature=8.0, top_p=0.95)
    first = TransformersLanguageModel(model, tokenizer, batch_tokens=100_000, seed=1).generate_until(sampled)
    again = TransformersLanguageModel(model, tokenizer, batch_tokens=1, seed=1).generate_until(sampled)
    other = TransformersLanguageModel(model, tokenizer, seed=2).generate_until(sampled)
    assert first == again
    assert first != other
    twice = TransformersLanguageModel(model, tokenizer, seed=1).generate_until([sampled[0], sampled[0]])
    assert twice[0] == first[0] != twice[1]


def test_weights_changed_in_place_are_seen(tokenizer):
    from tests.unit.evaluation.conftest import make_model

    lm = TransformersLanguageModel(make_model("llama"), tokenizer)
    before = lm.loglikelihood(choices())
    with torch.no_grad():
        for parameter in lm.model.parameters():
            parameter.mul_(0.5)
    assert lm.loglikelihood(choices()) != before


def test_long_contexts_lose_their_beginning_and_are_reported(ours, tokenizer):
    long = "word " * 400
    ours.loglikelihood([asked("loglikelihood", long, "end"), asked("loglikelihood", "short", " end")])
    assert ours.truncated == {long}
    ours.generate_until([asked("generate_until", long, {"until": [], "max_gen_toks": 8})])
    assert ours.truncated == {long}


def test_rolling_loglikelihood_starts_after_one_bos(ours):
    rolling = ours.loglikelihood_rolling([asked("loglikelihood_rolling", text) for text in CONTEXTS])
    whole = ours.loglikelihood([asked("loglikelihood", "", text) for text in CONTEXTS])
    assert rolling == pytest.approx([value for value, _ in whole], abs=1e-4)


def test_a_folder_loads_with_the_attention_of_its_family(model, tokenizer, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    lm = language_models.load("transformers", tmp_path, dtype="float32", device="cpu")
    assert lm.model.config._attn_implementation == ("eager" if model.config.model_type == "gemma2" else "sdpa")
    assert lm.generate_until(prompts()) == TransformersLanguageModel(model, tokenizer).generate_until(prompts())
    with pytest.raises(MergebenchError, match="knows float32 and bfloat16"):
        language_models.load("transformers", tmp_path, dtype="float16")


def test_unknown_backend_names_those_available(tmp_path):
    with pytest.raises(MergebenchError, match="available: transformers"):
        language_models.load("vllm", tmp_path)
