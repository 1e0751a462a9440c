"""What the vLLM backend asks of an engine and how it reads the answers, on a stand-in with a prefix cache; tests/vllm has the real one.

The stand-in returns scores of prompt tokens in the two ways of vLLM's model runners: V1 has a place for every token, and
whatever the memory held for those that came from the cache; V2 leaves these out.
"""

import math
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lm_eval.api.instance import Instance

from mergebench.errors import MergebenchError
from mergebench.evaluation.backends.base import Question
from mergebench.evaluation.backends.tokens import Encoder
from mergebench.evaluation.backends.vllm import VllmLanguageModel

VOCABULARY = 40
BLOCK = 4
GARBAGE = 1e30


def log_probabilities(prefix: list[int]) -> np.ndarray:
    """A language model: the next token depends on all tokens before it."""
    logits = np.random.default_rng(prefix).normal(size=VOCABULARY)
    return logits - math.log(np.exp(logits).sum())


class Flat:
    """vLLM's FlatLogprobs, as far as it is read."""

    def __init__(self) -> None:
        self.start_indices, self.token_ids, self.logprobs, self.ranks = [], [], [], []

    def __len__(self) -> int:
        return len(self.start_indices)

    def add(self, tokens=(), values=(), ranks=()) -> None:
        self.start_indices.append(len(self.token_ids))
        self.token_ids += tokens
        self.logprobs += values
        self.ranks += ranks


class Engine:
    """A `vllm.LLM` that answers at once, with a prefix cache of whole blocks."""

    def __init__(self, runner: str) -> None:
        self.runner = runner
        self.blocks: set[tuple[int, ...]] = set()
        self.submitted: list[tuple[list[int], SimpleNamespace]] = []

    def generate(self, prompts, parameters, use_tqdm):
        bar = use_tqdm(total=len(prompts), desc="Processed prompts", dynamic_ncols=True, postfix="")
        outputs = []
        for prompt, wanted in zip(prompts, parameters, strict=True):
            outputs.append(self._answer(prompt["prompt_token_ids"], wanted))
            assert bar.format_dict["elapsed"] > 0
            bar.update(1)
        return outputs

    def reset_prefix_cache(self) -> bool:
        self.blocks.clear()
        return True

    def _cached(self, ids, wanted) -> int:
        if wanted.skip_reading_prefix_cache:
            return 0
        whole = range(BLOCK, len(ids), BLOCK)
        return max((end for end in whole if tuple(ids[:end]) in self.blocks), default=0)

    def _answer(self, ids, wanted):
        self.submitted.append((ids, wanted))
        cached = self._cached(ids, wanted)
        self.blocks |= {tuple(ids[:end]) for end in range(BLOCK, len(ids) + 1, BLOCK)}
        prompt_logprobs = None
        if wanted.prompt_logprobs is not None:
            prompt_logprobs = Flat()
            prompt_logprobs.add()
            for place in range(1, len(ids)):
                if place <= cached:
                    if self.runner == "V1":
                        prompt_logprobs.add([7], [GARBAGE], [0])
                    continue
                scores = log_probabilities(ids[:place])
                prompt_logprobs.add([ids[place]], [scores[ids[place]]], [int((scores >= scores[ids[place]]).sum())])
        scores = log_probabilities(ids)
        best = int(scores.argmax())
        last = Flat()
        asked = [best, *wanted.logprob_token_ids]
        # A batch is as wide as its widest request.
        last.add([*asked, 0, 0], [*(scores[token] for token in asked), -math.inf, -math.inf], range(len(asked) + 2))
        return SimpleNamespace(
            prompt_logprobs=prompt_logprobs,
            num_cached_tokens=cached,
            outputs=[SimpleNamespace(index=0, token_ids=[best], logprobs=last, finish_reason="length")],
        )


def model(runner: str) -> VllmLanguageModel:
    lm = VllmLanguageModel(
        Engine(runner), Encoder(SimpleNamespace(bos_token_id=1)), facts={"device": "none"}, max_length=64, end_tokens=[2]
    )
    lm._parameters = lambda **wanted: SimpleNamespace(**wanted)  # vLLM's own class is not installed here
    return lm


def expected(question: Question) -> list[tuple[float, bool]]:
    found = []
    for continuation in question.continuations:
        scores = [log_probabilities(question.context + continuation[:place]) for place in range(len(continuation))]
        value = sum(score[token] for score, token in zip(scores, continuation, strict=True))
        found.append((float(value), all(int(score.argmax()) == token for score, token in zip(scores, continuation, strict=True))))
    return found


TOKENS = st.lists(st.integers(0, VOCABULARY - 1), min_size=1, max_size=13)
QUESTIONS = st.builds(
    lambda context, continuations: Question(context, continuations, [[n] for n in range(len(continuations))]),
    TOKENS,
    st.lists(TOKENS, min_size=1, max_size=5, unique_by=tuple),
)


@pytest.mark.parametrize("runner", ["V1", "V2"])
@settings(max_examples=40)
@given(questions=st.lists(QUESTIONS, min_size=1, max_size=4))
def test_scores_are_right_whatever_the_cache_holds(runner, questions):
    lm = model(runner)
    for _ in range(2):  # the second time the cache holds all whole blocks, those of the continuations too
        for question, found in zip(questions, lm.score(questions), strict=True):
            wanted = expected(question)
            assert [value for value, _ in found] == pytest.approx([value for value, _ in wanted])
            assert [greedy for _, greedy in found] == [greedy for _, greedy in wanted]


@pytest.mark.parametrize("runner", ["V1", "V2"])
def test_a_continuation_in_the_cache_is_computed_again(runner):
    lm = model(runner)
    question = Question(list(range(5)), [list(range(6, 16))], [[0]])
    assert lm.score([question]) == lm.score([question])
    assert lm.recomputed == 1


def test_an_engine_that_never_returns_the_scores_is_an_error(monkeypatch):
    lm = model("V2")
    monkeypatch.setattr(lm.llm, "_cached", lambda ids, wanted: len(ids) - 1)
    with pytest.raises(MergebenchError, match="vLLM returned no scores for a prompt of 14 tokens"):
        lm.score([Question(list(range(5)), [list(range(6, 16))], [[0]])])


def test_one_request_has_the_single_tokens_of_a_question_and_at_most_128_of_them():
    lm = model("V1")
    lm.score([Question([1, 5, 6], [[token] for token in range(VOCABULARY)], [[n] for n in range(VOCABULARY)])])
    assert [len(wanted.logprob_token_ids) for _, wanted in lm.llm.submitted] == [VOCABULARY]
    wide = Question([1, 5, 6], [[token] for token in range(300)], [[n] for n in range(300)])
    from mergebench.evaluation.backends.vllm import _requests

    assert [len(request.last) for request in _requests(0, wide)] == [128, 128, 44]


def test_the_last_token_of_a_continuation_is_never_an_input():
    lm = model("V1")
    lm.score([Question([1] * 63, [[5, 9]], [[0]])])
    assert [ids for ids, _ in lm.llm.submitted] == [[1] * 63 + [5]]


def test_progress_counts_choices_and_never_exceeds_the_total():
    lm = model("V1")
    seen = []
    lm.progress = lambda done, total, what: seen.append((done, total))
    questions = [Question([1, n], [[5, 6], [7, 8, 9]], [[0], [1]]) for n in range(10)]
    lm.score(questions)
    assert seen == [(done, 20) for done in range(1, 21)]


def completion(tokens, reason, index=0):
    return SimpleNamespace(index=index, token_ids=tokens, finish_reason=reason)


def test_samples_are_one_request_with_a_seed_and_keep_their_order(monkeypatch):
    lm = model("V1")
    lm.encoder = Encoder(FakeTokenizer())
    asked = []

    def generate(prompts, parameters, use_tqdm):
        asked.extend(parameters)
        return [SimpleNamespace(outputs=[completion([10 + n, 2], "stop", n) for n in reversed(range(wanted.n))]) for wanted in parameters]

    monkeypatch.setattr(lm.llm, "generate", generate)
    sampled = Instance("generate_until", {}, ("a", {"do_sample": True, "temperature": 0.5, "until": ["\n"]}), 0, ("t", 0, 3))
    greedy = Instance("generate_until", {}, ("a", {"until": []}), 0, ("t", 0, 1))
    assert lm.generate_until([sampled, greedy, sampled, sampled, greedy]) == ["10", "10", "11", "12", "10"]
    assert [(wanted.n, wanted.temperature, wanted.seed is None, wanted.detokenize) for wanted in asked] == [
        (3, 0.5, False, True),
        (1, 0.0, True, False),
    ]
    assert not lm.unfinished
    before = asked[0].seed
    lm.seed = 1
    lm.generate_until([sampled] * 3)
    assert asked[-1].seed != before


@pytest.mark.parametrize(
    ("tokens", "reason", "text", "finished"), [([5, 2], "stop", "5", True), ([5, 6], "stop", "5 6", True), ([5, 6], "length", "5 6", False)]
)
def test_the_token_that_stops_an_answer_is_not_part_of_it(monkeypatch, tokens, reason, text, finished):
    lm = model("V1")
    lm.encoder = Encoder(FakeTokenizer())
    monkeypatch.setattr(lm.llm, "generate", lambda prompts, parameters, use_tqdm: [SimpleNamespace(outputs=[completion(tokens, reason)])])
    assert lm.generate_until([Instance("generate_until", {}, ("a", {"until": []}), 0, ("t", 0, 1))]) == [text]
    assert lm.unfinished == (set() if finished else {"a"})


def test_a_cache_that_cannot_be_cleared_is_an_error(monkeypatch):
    lm = model("V1")
    lm.reset()
    monkeypatch.setattr(lm.llm, "reset_prefix_cache", lambda: False)
    with pytest.raises(MergebenchError, match="could not clear its prefix cache"):
        lm.reset()


class FakeTokenizer:
    """Every character is a token; answers are written as numbers."""

    bos_token_id = 1

    def __call__(self, texts, **_):
        return {"input_ids": [[ord(letter) for letter in text] for text in texts]}

    def batch_decode(self, answers, skip_special_tokens):
        return [" ".join(map(str, answer)) for answer in answers]
