"""A fixed set of questions whose answers tell one model from another: asked after each change of a live model's weights."""

from __future__ import annotations

import math

from mergebench.errors import MergebenchError
from mergebench.evaluation.backends.base import LanguageModel, Question

TEXTS = (
    "The quick brown fox jumps over the lazy dog, and seven wizards box.",
    "Question: what is 17 + 25?\nAnswer: 17 + 25 = 42.\nQuestion: what is 8 x 9?\nAnswer:",
    "def add(first, second):\n    return first",
)
CONTEXT, SPREAD, ANSWERS = 64, 24, 32


class Probe:
    """Log-probabilities of tokens from all of the vocabulary after a few contexts, each with some tokens from all of the vocabulary.

    All rows of the output head take part in every answer, and every layer.

    Args:
        lm: the language model.
    """

    def __init__(self, lm: LanguageModel) -> None:
        self.lm = lm
        size = len(lm.tokenizer)
        room = min(CONTEXT, lm.max_length) - SPREAD
        answers = sorted({place * (size - 1) // (ANSWERS - 1) for place in range(ANSWERS)})
        self.questions = []
        for number, ids in enumerate(lm.encode(TEXTS)):
            spread = [(place * size // SPREAD + number) % size for place in range(SPREAD)]
            context = (ids[: max(room, 1)] + spread)[: lm.max_length - 1]
            self.questions.append(Question(context, [[answer] for answer in answers], [[0] for _ in answers]))

    def ask(self) -> tuple[float, ...]:
        """The log-probabilities, with nothing remembered of earlier weights.

        Raises:
            MergebenchError: the engine took part of an answer from its cache.
        """
        self.lm.reset()
        before = self.lm.reused
        found = self.lm.score(self.questions)
        if self.lm.reused > before:
            raise MergebenchError(
                f"{self.lm.name} answered from its cache of prompts right after it was cleared: scores would be those of other weights. "
                "Set the backend of tuning to transformers, and report the release of the engine."
            )
        return tuple(value for scores in found for value, _ in scores)


def distance(one: tuple[float, ...], other: tuple[float, ...]) -> float:
    """The largest difference of two answers; a number that is not finite is only like itself."""
    return max(0.0 if a == b or (math.isnan(a) and math.isnan(b)) else abs(a - b) if math.isfinite(a - b) else math.inf
               for a, b in zip(one, other, strict=True))  # fmt: skip
