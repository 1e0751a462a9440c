"""Values, standard errors and parts."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mergebench.evaluation import aggregate, bleu
from mergebench.evaluation.aggregate import Item


def items(outcomes, groups=None):
    groups = groups or [""] * len(outcomes)
    return [Item(str(i), g, o, "") for i, (o, g) in enumerate(zip(outcomes, groups, strict=True))]


def test_mean_has_the_error_of_a_sample_mean():
    score = aggregate.mean(items([1, 1, 0, 1]))
    assert (score.value, score.n, score.parts) == (0.75, 4, {})
    assert score.standard_error == pytest.approx(math.sqrt(0.75 * 0.25 / 3))


def test_one_item_has_no_error():
    assert aggregate.mean(items([1.0])).standard_error is None


def test_languages_weigh_the_same():
    score = aggregate.mean_over_groups(items([1, 1, 1, 0, 0, 1], ["fr"] * 4 + ["ru"] * 2))
    assert score.parts == {"fr": 0.75, "ru": 0.5}
    assert score.value == 0.625
    expected = math.sqrt(0.75 * 0.25 / 3 + 0.5 * 0.5 / 1) / 2
    assert score.standard_error == pytest.approx(expected)


def test_nothing_to_score_is_not_a_number():
    assert all(math.isnan(function([]).value) for function in aggregate.AGGREGATES.values())


def naive_best_f1(rows):
    """The official script's ``find_best_thresh``."""
    current = best = sum(not row.extra["answerable"] for row in rows)
    for row in sorted(rows, key=lambda r: r.extra["no_answer_probability"]):
        current += row.outcome if row.extra["answerable"] else (-1 if row.response else 0)
        best = max(best, current)
    return best / len(rows)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.sampled_from([0.0, 0.1, 0.5, 0.9]), st.booleans()), min_size=1, max_size=12))
def test_best_f1_is_the_official_one_and_the_mean_of_its_outcomes(rows):
    found = [
        Item(str(i), "", f1 if answerable else float(not said), "x" if said else "", {"no_answer_probability": p, "answerable": answerable})
        for i, (f1, answerable, p, said) in enumerate(rows)
    ]
    expected = naive_best_f1(found)
    score = aggregate.best_f1(found)
    assert score.value == pytest.approx(expected)
    assert np.mean([item.outcome for item in found]) == pytest.approx(score.value)


def test_corpus_bleu_is_not_the_mean_of_sentences_and_has_an_error():
    pairs = [("the cat sat on the mat", "the cat sat on a mat"), ("it is raining in town", "it is raining in town"), ("a b c d e", "b")]
    found = [Item(str(i), "", 0.0, h, {"counts": bleu.counts(r, h).tolist()}) for i, (r, h) in enumerate(pairs)]
    score = aggregate.corpus_bleu(found)
    assert score.value == pytest.approx(bleu.score(sum(bleu.counts(r, h) for r, h in pairs), "exp"))
    assert 0 < score.standard_error < 0.5
    assert aggregate.corpus_bleu(found).standard_error == score.standard_error
