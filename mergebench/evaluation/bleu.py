"""BLEU from sufficient statistics, so that a corpus score can be bootstrapped over items.

Tokens are sacreBLEU's 13a (mteval-v13a). Two smoothings: ``exp``, sacreBLEU's default, halves the numerator for each order
without a match; ``add-one`` adds 1 to matches and totals of every order, as ``evaluate``'s ``bleu`` with ``smooth=True``, which
CoNaLa uses. Papineni et al. 2002; Lin and Och 2004; Post 2018.
"""

from collections import Counter
from functools import lru_cache
from typing import Any, Literal

import numpy as np

ORDER = 4


@lru_cache(maxsize=1)
def _tokenizer() -> Any:
    from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a

    return Tokenizer13a()


def counts(reference: str, hypothesis: str) -> np.ndarray:
    """Length of hypothesis and reference, matches of order 1-4, and n-grams of order 1-4: int64 of shape (10,)."""
    ref, hyp = (_tokenizer()(text.rstrip()).split() for text in (reference, hypothesis))
    matches, totals = [], []
    for order in range(1, ORDER + 1):
        given, wanted = _ngrams(hyp, order), _ngrams(ref, order)
        matches.append(sum((given & wanted).values()))
        totals.append(sum(given.values()))
    return np.array([len(hyp), len(ref), *matches, *totals], dtype=np.int64)


def _ngrams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(tokens[i : i + order]) for i in range(len(tokens) - order + 1))


def score(summed: np.ndarray, smooth: Literal["exp", "add-one"]) -> float:
    """BLEU-4 in [0, 1] of statistics summed over a corpus (or of one sentence)."""
    hypothesis, reference = float(summed[0]), float(summed[1])
    matches, totals = summed[2:6].astype(float), summed[6:10].astype(float)
    if hypothesis == 0 or (smooth == "exp" and (matches[0] == 0 or (totals == 0).any())):
        return 0.0
    if smooth == "add-one":
        precision = (matches + 1) / (totals + 1)
    else:
        missed = np.cumsum(matches == 0)
        precision = np.where(matches > 0, matches, 0.5**missed) / totals
    brevity = 1.0 if hypothesis > reference else float(np.exp(1 - reference / hypothesis))
    return min(1.0, brevity * float(np.exp(np.log(precision).mean())))
