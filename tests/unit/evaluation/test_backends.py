"""Our batched language model against lm-eval's own transformers backend, and its further promises."""

import ast
import hashlib
import shutil
import subprocess
import sys
import weakref
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM

from mergebench.errors import MergebenchError
from mergebench.evaluation import backends
from mergebench.evaluation.backends.tokens import Encoder
from mergebench.evaluation.backends.transformers import TransformersLanguageModel

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
    lm = backends.load("transformers", tmp_path, dtype="float32", device="cpu")
    assert lm.model.config._attn_implementation == ("eager" if model.config.model_type == "gemma2" else "sdpa")
    assert lm.generate_until(prompts()) == TransformersLanguageModel(model, tokenizer).generate_until(prompts())
    with pytest.raises(MergebenchError, match="knows float32 and bfloat16"):
        backends.load("transformers", tmp_path, dtype="float16")


def test_unknown_backend_names_those_available(tmp_path):
    with pytest.raises(MergebenchError, match="allowed: transformers, vllm"):
        backends.load("llama.cpp", tmp_path)


def test_vllm_that_is_not_installed_is_explained(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(MergebenchError, match=r"vLLM cannot be imported here .* `make install-gpu` installs it"):
        backends.load("vllm", tmp_path)


@pytest.mark.parametrize(("one", "other"), [("transformers", "vllm"), ("vllm", "transformers")])
def test_no_backend_needs_the_code_of_the_other(one, other):
    tree = ast.parse((Path(backends.__file__).parent / f"{one}.py").read_text())
    imported = [node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert f"mergebench.evaluation.backends.{one}" not in imported
    assert "mergebench.evaluation.backends.base" in imported
    assert f"mergebench.evaluation.backends.{other}" not in imported


def test_naming_the_backends_imports_none_of_their_libraries():
    code = (
        "import sys; import mergebench.evaluation.backends; print(sorted({'torch', 'transformers', 'vllm', 'lm_eval'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60).stdout == "[]\n"


@pytest.mark.parametrize("missing", ["tokenizer.json", "tokenizer*"])
def test_a_folder_without_tokenizer_is_refused(weights_folder, tmp_path, missing):
    folder = shutil.copytree(weights_folder, tmp_path / "bare", ignore=shutil.ignore_patterns(missing))
    with pytest.raises(MergebenchError, match=r"bare has no tokenizer: one of tokenizer\.json.* is expected beside the weights"):
        backends.load("transformers", folder)


def test_more_positions_than_the_model_has_are_refused(weights_folder):
    with pytest.raises(MergebenchError, match="max_length is 257; it must be from 2 to the 256 positions that the model has"):
        backends.load("transformers", weights_folder, max_length=257)


def test_fewer_positions_cut_more(weights_folder):
    lm = backends.load("transformers", weights_folder, max_length=16, device="cpu")
    lm.loglikelihood([asked("loglikelihood", CONTEXTS[4], " x"), asked("loglikelihood", "short", " x")])
    assert lm.truncated == {CONTEXTS[4]}


def test_a_choice_that_is_longer_than_the_model_is_refused(ours):
    with pytest.raises(MergebenchError, match=r"a continuation of \d+ tokens cannot be scored by a model of 256 positions"):
        ours.loglikelihood([asked("loglikelihood", "short", " word" * 400)])


def test_a_setting_that_no_backend_knows_is_refused(ours):
    with pytest.raises(MergebenchError, match="generation setting 'top_k' is not known; did you mean 'top_p'"):
        ours.generate_until([asked("generate_until", "short", {"top_k": 3})])


def test_facts_name_what_computes_and_prove_the_bos(weights_folder, tokenizer):
    lm = backends.load("transformers", weights_folder, device="cpu")
    facts = lm.facts()
    assert facts["bos"] == {"token_id": tokenizer.bos_token_id, "exactly_one": True}
    assert (facts["backend"], facts["device"], facts["dtype"], facts["max_length"]) == ("transformers", "cpu", "float32", 256)
    assert {"transformers", "torch"} <= facts["versions"].keys()
    assert facts["chat_template_sha256"] == hashlib.sha256(tokenizer.chat_template.encode()).hexdigest()


def test_the_preflight_finds_a_template_that_doubles_the_bos(model):
    from tests.unit.evaluation.conftest import make_tokenizer

    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ bos_token }}User:{{ bos_token }}{{ messages[0]['content'] }}"
    with pytest.raises(MergebenchError, match="the chat template is encoded with 2 beginning-of-sequence tokens, '<bos>'"):
        TransformersLanguageModel(model, tokenizer).preflight()


def test_the_preflight_finds_a_backend_that_changes_prompts(ours, monkeypatch):
    monkeypatch.setattr(ours, "received", lambda ids: ids[1:])
    with pytest.raises(MergebenchError, match="it must take tokens as given"):
        ours.preflight()


def test_a_closed_model_holds_no_weights(weights_folder):
    lm = backends.load("transformers", weights_folder, device="cpu")
    weights = weakref.ref(lm.model)
    lm.close()
    assert weights() is None


@pytest.mark.parametrize(
    ("text", "allowed", "expected"),
    [("x", 1, 1), ("x", 2, 1), ("<bos>x", 1, 1), ("<bos>x", 2, 2), ("<bos>" * 3 + "x", 2, 2), ("<bos>x", 0, 0)],
)
def test_a_text_keeps_its_own_bos_up_to_the_allowed_number(tokenizer, text, allowed, expected):
    [ids] = Encoder(tokenizer).encode([text], allowed)
    assert Encoder(tokenizer).leading(ids) == expected
    assert ids.count(tokenizer.bos_token_id) == expected


@given(leading=st.integers(0, 3), rest=st.lists(st.integers(3, 99), max_size=12), room=st.integers(1, 12))
def test_what_is_cut_is_the_beginning_after_the_bos(leading, rest, room):
    encoder = Encoder(SimpleNamespace(bos_token_id=1))
    ids = [1] * leading + rest
    kept = encoder.keep_end(ids, room)
    assert len(kept) == min(room, len(ids)) or len(ids) < room
    if len(ids) >= room:
        own = min(leading, room)
        assert kept[:own] == [1] * own
        assert kept[own:] == rest[len(rest) - (room - own) :] if room > own else kept == [1] * room


def test_stop_tokens_are_ids_or_names_and_unknown_names_are_ignored(tokenizer):
    assert Encoder(tokenizer).token_ids([7, "<pad>", "<|eot_id|>"]) == {7, 0}


def tokens_of(lm, request) -> list[int]:
    [[answer]] = lm.answer(lm._prompts([request]))
    return answer.tokens


def test_stop_token_ids_end_an_answer_and_are_not_part_of_it(ours):
    [request] = prompts(until=[])[1:2]
    ids = tokens_of(ours, request)
    stop = ids[len(ids) // 2]
    [stopped] = prompts(until=[], stop_token_ids=[stop])[1:2]
    assert tokens_of(ours, stopped) == ids[: ids.index(stop)]
    assert ours.generate_until([stopped]) == [ours.tokenizer.decode(ids[: ids.index(stop)])]
    assert not ours.unfinished


def test_a_limit_of_prompt_and_answer_together(ours):
    [prompt] = ours.encode(CONTEXTS[:1])
    assert len(tokens_of(ours, prompts(until=[], max_total_toks=len(prompt) + 5)[0])) == 5
    for room in (0, -1):
        ours.unfinished.clear()
        assert ours.generate_until(prompts(until=[], max_total_toks=len(prompt) + room)[:1]) == [""]
        assert ours.unfinished == {CONTEXTS[0]}


def test_equal_greedy_requests_are_computed_once(ours, monkeypatch):
    seen = []
    answer = ours.answer
    monkeypatch.setattr(ours, "answer", lambda prompts: seen.append(len(prompts)) or answer(prompts))
    assert len(set(ours.generate_until(prompts()[:1] * 5))) == 1
    assert seen == [1]


def test_a_sample_does_not_depend_on_what_else_is_asked(ours):
    sampled = prompts(do_sample=True, temperature=8.0)
    [alone] = ours.generate_until(sampled[:1])
    assert ours.generate_until([*sampled[1:], *prompts(do_sample=True, temperature=8.0, max_gen_toks=9), sampled[0]])[-1] == alone


@pytest.mark.parametrize(
    ("settings", "temperature"),
    [({}, 0.0), ({"do_sample": True, "temperature": 0.2}, 0.2), ({"temperature": 0.2}, 0.2), ({"do_sample": True}, 1.0),
     ({"do_sample": False, "temperature": 0.2}, 0.0), ({"do_sample": True, "temperature": 0.0}, 0.0)],
)  # fmt: skip
def test_what_makes_a_request_sample(ours, settings, temperature):
    [prompt] = ours._prompts([asked("generate_until", "x", settings)])
    assert prompt.temperature == temperature


def test_texts_longer_than_the_model_are_scored_in_the_windows_of_lm_eval(ours, model, tokenizer):
    stock = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=2, add_bos_token=False)
    requests = [asked("loglikelihood_rolling", text) for text in [*CONTEXTS, " ".join(CONTEXTS) * 5]]
    expected = stock.loglikelihood_rolling(requests, disable_tqdm=True)
    assert len(ours.encode([requests[-1].args[0]], 0)[0]) > ours.max_length
    assert ours.loglikelihood_rolling(requests) == pytest.approx(expected, rel=1e-6, abs=1e-4)


def test_many_continuations_of_one_context_do_not_share_a_row_without_end(ours, monkeypatch):
    """Whole texts all follow the BOS: side by side they would need a mask of the square of all their tokens."""
    widest = []
    score = ours._score_branches
    monkeypatch.setattr(ours, "_score_branches", lambda c, b: widest.append(max(sum(map(len, part)) for part in b)) or score(c, b))
    texts = [f"{number} " + "Un deux trois " * 5 for number in range(60)]
    together = ours.loglikelihood_rolling([asked("loglikelihood_rolling", text) for text in texts])
    assert max(widest) < 400
    assert together[7] == pytest.approx(ours.loglikelihood_rolling([asked("loglikelihood_rolling", texts[7])])[0], abs=1e-4)


def test_an_empty_continuation_costs_nothing(ours):
    assert ours.loglikelihood([asked("loglikelihood", "short", "")]) == [(0.0, True)]
