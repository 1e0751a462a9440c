"""Rows of a step: every sample once, none cut, none too long, as many as the processes need."""

import random

import pytest

from mergebench.errors import MergebenchError
from mergebench.training.examples import IGNORED, Example
from mergebench.training.packing import best_fit, even, steps_of_packs, steps_of_samples
from mergebench.training.samples import Joined, Listed
from mergebench.training.settings import SftSettings
from mergebench.training.sft import Rows, schedule

MAX = 100
DRAWS = {
    "short": lambda rng: rng.randint(1, 20),
    "mixed": lambda rng: min(MAX, int(rng.lognormvariate(3, 1)) + 1),
    "long": lambda rng: rng.randint(51, MAX),
    "full": lambda rng: MAX,
}


def lengths_of(kind, count=320):
    rng = random.Random(kind)
    return [DRAWS[kind](rng) for _ in range(count)]


def tokens(row, lengths):
    return sum(lengths[index] for index in row)


@pytest.mark.parametrize("unit", [1, 3, 8, 64])
@pytest.mark.parametrize("kind", DRAWS)
def test_a_step_has_its_samples_in_rows_that_fit(kind, unit):
    lengths = lengths_of(kind)
    order = random.Random(1).sample(range(320), 320)
    steps = steps_of_samples(order, lengths, 32, MAX, unit)
    assert [sorted(i for row in step for i in row) for step in steps] == [sorted(order[i : i + 32]) for i in range(0, 320, 32)]
    assert max(tokens(row, lengths) for step in steps for row in step) <= MAX
    assert {len(step) for step in steps} == {len(steps[0])}
    assert len(steps[0]) % unit == 0


@pytest.mark.parametrize("kind", DRAWS)
def test_a_step_has_no_more_rows_than_its_fullest_step_needs(kind):
    lengths = lengths_of(kind)
    steps = steps_of_samples(range(320), lengths, 32, MAX, 4)
    needed = max(len(best_fit(range(i, i + 32), lengths, MAX)) for i in range(0, 320, 32))
    assert len(steps[0]) < needed + 4


def test_best_fit_finds_the_packing_that_first_fit_misses():
    # 6 + 4, 5 + 5 and 7 + 3 fill three rows of ten.
    rows = best_fit(range(6), [4, 5, 6, 3, 7, 5], 10)
    assert sorted(tokens(row, [4, 5, 6, 3, 7, 5]) for row in rows) == [10, 10, 10]


def test_the_tokens_of_a_step_are_spread_evenly():
    lengths = lengths_of("short")
    loads = [tokens(row, lengths) for row in even(best_fit(range(320), lengths, MAX), lengths, MAX, 60)]
    assert max(loads) - min(loads) <= 20


def test_the_fullest_packing_stays_where_an_even_spread_does_not_fit():
    lengths = [3, 3, 2, 2, 2]  # spread over two rows of six, the last sample would make one of seven
    packed = best_fit(range(5), lengths, 6)
    assert even(packed, lengths, 6, 2) == packed == [[0, 1], [2, 3, 4]]


def test_more_rows_than_samples_are_made_up_with_fillers():
    (step,) = steps_of_samples([0, 1], [9, 9], 2, MAX, 5)
    assert sorted(step) == [[], [], [], [0], [1]]


@pytest.mark.parametrize("kind", DRAWS)
def test_packs_hold_every_sample_once_and_are_full(kind):
    lengths = lengths_of(kind, 9000)
    steps = steps_of_packs(range(9000), lengths, 16, MAX, 8)
    rows = [row for step in steps for row in step]
    assert sorted(i for row in rows for i in row) == list(range(9000))
    assert max(tokens(row, lengths) for row in rows) <= MAX
    assert sum(map(len, steps)) == 16 * len(steps)
    assert sum(not row for row in rows) < 16, "fillers are in the last step alone"
    if kind in ("short", "full"):
        assert sum(lengths) / (MAX * sum(map(bool, rows))) > 0.98


def test_packs_of_a_step_are_a_cross_section_of_lengths():
    lengths = lengths_of("mixed", 2000)
    steps = steps_of_packs(range(2000), lengths, 16, MAX, 1)
    sizes = [sum(map(len, step)) for step in steps[:-1]]
    assert max(sizes) < 3 * min(sizes)


def test_a_sample_that_is_too_long_is_refused():
    with pytest.raises(MergebenchError, match="sample 1 has 101 tokens, more than the 100"):
        steps_of_samples([0, 1], [3, 101], 2, MAX, 1)


def samples(lengths):
    return Joined([Listed([Example(str(i), [7] * n, [IGNORED, *[7] * (n - 1)]) for i, n in enumerate(lengths)])])


def test_the_samples_of_a_step_do_not_depend_on_packing_or_processes():
    data = samples(lengths_of("mixed"))
    settings = [SftSettings(learning_rate=1, batch_size=16, max_length=MAX, epochs=2, packing=packing) for packing in (False, True, True)]
    plans = [schedule(data, one, 3, processes) for one, processes in zip(settings, (1, 1, 4), strict=True)]
    assert len({plan.steps for plan in plans}) == 1
    steps = [
        [sorted(i for row in plan.rows[s : s + plan.per_step] for i in row) for s in range(0, len(plan.rows), plan.per_step)]
        for plan in plans
    ]
    assert steps[0] == steps[1] == steps[2]
    assert plans[0].tokens == plans[1].tokens == plans[2].tokens


@pytest.mark.parametrize(("given", "steps"), [({"epochs": 1}, 10), ({"steps": 3}, 3), ({"epochs": 0.5}, 5)])
def test_steps_of_packs(given, steps):
    plan = schedule(
        samples([50] * 320), SftSettings(learning_rate=1, batch_size=16, max_length=MAX, packing=True, batch_unit="packs", **given), 0
    )
    assert plan.steps == steps
    assert plan.tokens == [1600] * steps


def test_a_filler_teaches_nothing():
    row = Rows([[]], samples([5]), packed=True)[0]
    assert set(row["labels"]) == {IGNORED}
    assert row["seq_lengths"] == [len(row["input_ids"])]


def lossy(model, rows, packed):
    """Sum of the losses of rows, and the gradient, through TRL's own collator."""
    import torch
    from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

    total = 0.0
    model.zero_grad()
    for row in rows:
        batch = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=packed)([row])
        batch.pop("attention_mask", None)
        labels = batch.pop("labels")
        logits = model(**batch, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED, reduction="sum")
        loss.backward()
        total += loss.item()
    return total, [parameter.grad.clone() for parameter in model.parameters()]


def test_packed_samples_do_not_see_each_other(pico_base):
    import torch

    from mergebench.training.models import load_model

    rng = random.Random(0)
    texts = [[rng.randrange(4, 50) for _ in range(rng.randint(3, 40))] for _ in range(12)]
    data = Joined([Listed([Example(str(i), ids, [IGNORED] * 2 + ids[2:]) for i, ids in enumerate(texts)])])
    model = load_model(pico_base).eval()
    alone, gradients = lossy(model, [Rows([[i]], data, packed=False)[0] for i in range(12)], packed=False)
    rows = Rows([*best_fit(range(12), data.lengths, 100), []], data, packed=True)
    packed, others = lossy(model, [rows[i] for i in range(len(rows))], packed=True)
    assert len(rows) < 6
    assert packed == pytest.approx(alone, rel=1e-6)
    for one, other in zip(gradients, others, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-4, atol=1e-5)
