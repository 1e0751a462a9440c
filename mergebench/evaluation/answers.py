"""Scorers of one document, as lm-eval's ``process_results``: the document and the responses, to an outcome.

Each returns ``{metric: {"outcome": float in [0, 1] or NaN, "response": str, ...}}``; further keys are kept per item. An
outcome that needs all items of a benchmark (BLEU's corpus form, SQuAD's threshold), a sandbox or a judge is settled later
in `aggregate`, `code` or `safety`.
"""

import math
import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import Any

from mergebench.evaluation import bleu

Scored = dict[str, dict[str, Any]]

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalised(text: str) -> str:
    """SQuAD's normal form: lower case, without punctuation, articles and repeated spaces."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def exact(gold: str, answer: str) -> float:
    """1 if both have the same normal form, else 0."""
    return float(normalised(gold) == normalised(answer))


def token_f1(gold: str, answer: str) -> float:
    """Harmonic mean of precision and recall over the tokens of the normal forms (SQuAD)."""
    wanted, given = normalised(gold).split(), normalised(answer).split()
    if not wanted or not given:
        return float(wanted == given)
    common = sum((Counter(wanted) & Counter(given)).values())
    return 2 * common / (len(wanted) + len(given))


def aliases(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """TriviaQA: the answer equals one of the aliases, but for case and punctuation."""
    response = results[0].strip()
    given = response.lower().translate(PUNCTUATION)
    hit = any(given == alias.lower().translate(PUNCTUATION) for alias in doc["aliases"])
    return {"exact_match": {"outcome": float(hit), "response": response}}


def span(doc: dict[str, Any], results: Sequence[Any]) -> Scored:
    """SQuAD v2: F1 and exact match of the answer, and the probability given to "unanswerable".

    As in the official script, an unanswerable question is right only if the answer is empty; `aggregate.best_f1` decides
    from the probability which answers count as empty.
    """
    response, (logprob, _) = results[0].strip(), results[1]
    golds = [gold for gold in doc["answers"] if normalised(gold)] or [""]
    return {
        "best_f1": {
            "outcome": max(token_f1(gold, response) for gold in golds),
            "response": response,
            "exact": max(exact(gold, response) for gold in golds),
            "no_answer_probability": math.exp(logprob),
            "answerable": bool(doc["answers"]),
        }
    }


def conversation(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """CoQA: F1 of the last turn's answer.

    With several accepted answers, the official score is the mean over leaving each of them out in turn of the best match
    with the others. An answer that matches only one of n distinct answers can therefore score at most (n - 1) / n plus what
    the others give.
    """
    response = results[0].strip().split("\n")[0]
    golds = list({gold.lower(): gold for gold in reversed(doc["answers"][-1])}.values())[::-1]
    kept = [[g for j, g in enumerate(golds) if j != i] for i in range(len(golds))] if len(golds) > 1 else [golds]
    f1 = sum(max(token_f1(g, response) for g in others) for others in kept) / len(kept)
    em = sum(max(exact(g, response) for g in others) for others in kept) / len(kept)
    return {"f1": {"outcome": f1, "response": response, "exact": em}}


def translation(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """WMT14: the counts of which `aggregate` makes corpus BLEU; the outcome is the smoothed BLEU of the sentence."""
    return _bleu(doc["target"], results[0].strip())


def snippet(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """CoNaLa: the first line of the answer against the reference, by smoothed BLEU-4."""
    return _bleu(doc["snippet"], results[0].strip().split("\n")[0])


def uncut_snippet(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """CoNaLa as bigcode-evaluation-harness scores it: with whatever the model went on to say behind its line of code."""
    return _bleu(doc["snippet"], results[0].split("Solution:\n", 3)[-1].strip())


def _bleu(reference: str, response: str) -> Scored:
    counts = bleu.counts(reference, response)
    return {"bleu": {"outcome": bleu.score(counts, smooth="add-one"), "response": response, "counts": counts.tolist()}}


def last_word(doc: dict[str, Any], results: Sequence[tuple[float, bool]]) -> Scored:
    """LAMBADA: greedy decoding gives the last word."""
    logprob, greedy = results[0]
    return {"acc": {"outcome": float(greedy), "response": "", "logprob": logprob}}


def lambada_context(doc: dict[str, Any]) -> str:
    """The text before its last space."""
    return doc["text"].rpartition(" ")[0]


def lambada_choices(doc: dict[str, Any]) -> list[str]:
    """What follows the last space of the text, as the only choice. In seven texts that begins with line breaks."""
    return [doc["text"].rpartition(" ")[2]]


def coqa_prompt(doc: dict[str, Any]) -> str:
    """The story, the earlier turns with their first accepted answer, and the last question."""
    turns = [f"Q: {q}\n\nA: {a[0]}\n\n" for q, a in zip(doc["questions"][:-1], doc["answers"][:-1], strict=True)]
    return f"{doc['story']}\n\n{''.join(turns)}Q: {doc['questions'][-1]}\n\nA:"


def letters(doc: dict[str, Any]) -> list[str]:
    """The letters of a question's choices."""
    return list(string.ascii_uppercase[: len(doc["choices"])])


def choice_texts(doc: dict[str, Any]) -> list[str]:
    """The texts of a question's choices, without the outer spaces that some have in the published files."""
    return [choice.strip() for choice in doc["choices"]]


def safety(doc: dict[str, Any], results: Sequence[str]) -> Scored:
    """An answer to a safety prompt; a judge labels it later."""
    return {"safety": {"outcome": math.nan, "response": results[0].strip()}}
