"""Ours on vLLM, ours on transformers and lm-eval's `hf` give the same numbers on some hundred items of every request type."""

import pytest
import torch

from tests.vllm.items import largest_difference, letters, prompts, texts, whole_texts

TOLERANCE = 1e-4
NEAR_TIE = 1e-3


def check(found, expected):
    assert len(found) == len(expected) >= 300
    assert largest_difference((value for value, _ in found), (value for value, _ in expected)) < TOLERANCE
    assert [greedy for _, greedy in found] == [greedy for _, greedy in expected]


@pytest.mark.parametrize("asked", [letters, texts])
def test_choices_have_the_log_probabilities_of_lm_eval(engine, plain, stock, asked):
    requests = asked()
    expected = stock.loglikelihood(requests, disable_tqdm=True)
    check(plain.loglikelihood(requests), expected)
    check(engine.loglikelihood(requests), expected)


def test_the_choices_of_the_two_types_differ_as_they_should(engine):
    lengths = {kind: {len(engine.encode([r.args[1]], 0)[0]) for r in kind()} for kind in (letters, texts)}
    assert max(lengths[texts]) >= 4
    assert lengths[letters] == {1}


def test_whole_texts_have_the_log_probabilities_of_lm_eval(engine, plain):
    from lm_eval.models.huggingface import HFLM

    # With its default lm-eval predicts a second BOS after the first.
    stock = HFLM(pretrained=plain.model, tokenizer=plain.tokenizer, batch_size=16, add_bos_token=False)
    requests = whole_texts()
    expected = stock.loglikelihood_rolling(requests, disable_tqdm=True)
    assert len(expected) >= 300
    assert largest_difference(plain.loglikelihood_rolling(requests), expected) < TOLERANCE
    assert largest_difference(engine.loglikelihood_rolling(requests), expected) < TOLERANCE


def gap_where_they_part(lm, request, one: str, other: str) -> float:
    """Distance of the two logits at the first token in which two answers differ."""
    first, second = (lm.tokenizer(text, add_special_tokens=False)["input_ids"] + [lm.tokenizer.eos_token_id] for text in (one, other))
    common = next(place for place, (a, b) in enumerate(zip(first, second, strict=False)) if a != b)
    ids = lm.encode([request.args[0]])[0] + first[:common]
    with torch.inference_mode():
        logits = lm.model(torch.tensor([ids])).logits[0, -1].float()
    return float((logits[first[common]] - logits[second[common]]).abs())


def test_greedy_answers_are_those_of_lm_eval_except_at_near_ties(engine, plain, stock):
    requests = prompts()
    expected = stock.generate_until(requests, disable_tqdm=True)
    assert len(expected) >= 300
    assert len(set(expected)) > 50
    for found in (plain.generate_until(requests), engine.generate_until(requests)):
        parted = [(r, a, b) for r, a, b in zip(requests, found, expected, strict=True) if a != b]
        assert len(parted) <= 3
        assert [gap_where_they_part(plain, *each) < NEAR_TIE for each in parted] == [True] * len(parted)
    assert engine.unfinished == plain.unfinished
    assert engine.unfinished


def test_contexts_longer_than_the_model_lose_the_same_beginning(engine, plain):
    from tests.vllm.items import asked

    long = "red son wolf " * 150
    requests = [asked("loglikelihood", long, ending) for ending in (" A", " the yellow park sees", " B")]
    check_few = [(lm.loglikelihood(requests), lm.truncated) for lm in (engine, plain)]
    (found, cut), (expected, cut_too) = check_few
    assert cut == cut_too == {long}
    assert largest_difference((v for v, _ in found), (v for v, _ in expected)) < TOLERANCE
    generation = [asked("generate_until", long, {"until": [], "max_gen_toks": 8})]
    assert engine.generate_until(generation) == plain.generate_until(generation)


def test_every_position_of_the_model_can_be_used(engine, plain):
    """A context of all positions, and a continuation whose last token stands one after them."""
    from tests.vllm.items import asked

    words = "the wolf sees a red park and the son " * 40
    ids = plain.encode([words])[0]
    context = plain.tokenizer.decode(ids[1 : engine.max_length], skip_special_tokens=False)
    assert len(plain.encode([context])[0]) == engine.max_length
    requests = [asked("loglikelihood", context, " A"), asked("loglikelihood", context[: len(context) // 2], " a wolf")]
    found, expected = engine.loglikelihood(requests), plain.loglikelihood(requests)
    assert largest_difference((v for v, _ in found), (v for v, _ in expected)) < TOLERANCE
    assert not engine.truncated


def test_stop_token_ids_end_an_answer_and_are_not_part_of_it(engine, plain):
    from tests.vllm.items import asked

    prompt = prompts()[0].args[0]
    [whole] = engine.generate_until([asked("generate_until", prompt, {"until": [], "max_gen_toks": 12})])
    ids = engine.encode([whole], 0)[0]
    stop = next(token for place, token in enumerate(ids) if place >= 2 and token not in ids[:place])
    request = [asked("generate_until", prompt, {"until": [], "max_gen_toks": 12, "stop_token_ids": [stop, "<|eot_id|>"]})]
    [found] = engine.generate_until(request)
    assert [found] == plain.generate_until(request)
    assert found == engine.tokenizer.decode(ids[: ids.index(stop)])
    assert found != whole


def test_a_second_bos_reaches_the_model_only_where_it_is_allowed(engine, plain):
    from tests.vllm.items import asked

    marked = engine.tokenizer.bos_token + "Q: one and one?\nA:"
    settings = {"until": [], "max_gen_toks": 8}
    for allowed, expected in ((1, 1), (2, 2)):
        [ids] = engine.encode([marked], allowed)
        assert engine.received(ids)[:3].count(engine.encoder.bos) == expected
        request = [asked("generate_until", marked, {**settings, "leading_bos": allowed})]
        assert engine.generate_until(request) == plain.generate_until(request)
