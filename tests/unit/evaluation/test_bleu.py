"""BLEU against sacreBLEU and against the definition of ``evaluate``'s smoothed BLEU."""

import math

import numpy as np
import pytest
import sacrebleu

from mergebench.evaluation import bleu

REFERENCES = ["The cat is black, and it sleeps.", "It is raining today in the town.", "Yes.", "One two three four five"]
HYPOTHESES = ["The black cat sleeps, and it is.", "It is raining today in the town.", "No!", "one two three"]


def test_corpus_bleu_equals_sacrebleu():
    total = sum(bleu.counts(r, h) for r, h in zip(REFERENCES, HYPOTHESES, strict=True))
    assert 100 * bleu.score(total, "exp") == pytest.approx(sacrebleu.corpus_bleu(HYPOTHESES, [REFERENCES]).score)


@pytest.mark.parametrize("hypothesis", ["The cat runs over there quickly now", "The cat is", "dog", "", "The cat is black, and it sleeps."])
def test_sentence_in_a_corpus_of_one_equals_sacrebleu(hypothesis):
    ours = 100 * bleu.score(bleu.counts(REFERENCES[0], hypothesis), "exp")
    assert ours == pytest.approx(sacrebleu.corpus_bleu([hypothesis], [[REFERENCES[0]]]).score)


def test_add_one_smoothing_by_hand():
    # tokens: sum ( x ) against sum ( y ): matches 3 of 4, 1 of 3, 0 of 2, 0 of 1
    value = bleu.score(bleu.counts("sum(x)", "sum(y)"), "add-one")
    assert value == pytest.approx(math.exp(np.mean(np.log([4 / 5, 2 / 4, 1 / 3, 1 / 2]))))


def test_short_hypotheses_pay_the_brevity_penalty():
    long, short = (bleu.score(bleu.counts("a b c d e f", text), "add-one") for text in ("a b c d e f", "a b c"))
    assert long == 1.0
    assert short == pytest.approx(math.exp(1 - 6 / 3))


def test_nothing_scores_zero():
    assert bleu.score(bleu.counts("a b", ""), "add-one") == 0.0
