"""IFEval: verifiable instructions, checked by lm-eval's checkers, offline and reproducibly.

lm-eval's module asks the network for NLTK's sentence models when it is imported, and langdetect draws random numbers. Here
the download is suppressed and both generators are seeded. Where the sentence models are absent, prompts with an instruction
that needs them are *unscorable*: they are left out of the score and counted.
"""

import contextlib
import io
import math
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

NEED_SENTENCE_MODELS = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
UNSCORABLE = "instruction needs NLTK's punkt_tab models, which are not installed (python -m nltk.downloader punkt_tab)"


@lru_cache(maxsize=1)
def _checkers() -> tuple[Any, bool]:
    """lm-eval's IFEval module, imported without touching the network, and whether sentence models are there."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    try:
        nltk.data.find("tokenizers/punkt_tab")
        complete = True
    except LookupError:
        complete = False
    download = nltk.download
    nltk.download = lambda *args, **kwargs: False
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from lm_eval.tasks.ifeval import utils
    finally:
        nltk.download = download
    return utils, complete


@contextlib.contextmanager
def _seeded() -> Iterator[None]:
    """Checkers without arguments draw them; the caller's generator is left as it was."""
    state = random.getstate()
    random.seed(0)
    try:
        yield
    finally:
        random.setstate(state)


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, dict[str, Any]]:
    """lm-eval's ``process_results``: 1 if the response follows every instruction of its prompt (strict).

    Kept per item: the strict and the loose outcome of every instruction and the loose outcome of the prompt. The outcome is NaN,
    with a reason, where an instruction cannot be checked on this machine. A response that breaks a checker does not follow it.
    """
    checkers, complete = _checkers()
    response = results[0]
    if not complete and not NEED_SENTENCE_MODELS.isdisjoint(doc["instruction_id_list"]):
        return {"prompt_level_strict_acc": {"outcome": math.nan, "response": response, "unscorable": UNSCORABLE}}
    with _seeded():
        strict = _followed(checkers.test_instruction_following_strict, checkers.InputExample, doc, response)
        loose = _followed(checkers.test_instruction_following_loose, checkers.InputExample, doc, response)
    return {
        "prompt_level_strict_acc": {
            "outcome": float(all(strict)),
            "response": response,
            "loose": float(all(loose)),
            "instructions": strict,
            "instructions_loose": loose,
        }
    }


def _followed(check: Any, example: Any, doc: dict[str, Any], response: str) -> list[bool]:
    """Whether a response follows each instruction; they are checked one by one, so that one that fails spoils no other."""
    from langdetect.lang_detect_exception import LangDetectException

    followed = []
    for instruction, arguments in zip(doc["instruction_id_list"], doc["kwargs"], strict=True):
        one = example(key=doc["id"], instruction_id_list=[instruction], prompt=doc["prompt"], kwargs=[arguments])
        try:
            followed.append(bool(check(one, response).follow_all_instructions))
        except (ValueError, IndexError, RecursionError, LangDetectException):
            followed.append(False)
    return followed
