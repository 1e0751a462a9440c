"""IFEval: verifiable instructions, checked by lm-eval's checkers, offline and reproducibly.

lm-eval's module asks the network for NLTK's sentence models when it is imported, and langdetect draws random numbers. Here
the download is suppressed and both generators are seeded. The sentence models are those that were fetched with the rows, or
else what NLTK finds on the machine. Where there are none, prompts with an instruction that needs them are *unscorable*: they are
left out of the score and counted.
"""

import contextlib
import io
import math
import random
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

NEED_SENTENCE_MODELS = {"length_constraints:number_sentences", "change_case:capital_word_frequency"}
SENTENCE_MODELS = "support/tokenizers/punkt_tab.zip"  # beside the rows, where the fetch put it
UNSCORABLE = (
    "instruction needs NLTK's sentence models, which were not fetched with the rows: put punkt_tab.zip into the data folder as "
    "nltk_data/tokenizers/punkt_tab.zip, or run python -m nltk.downloader punkt_tab"
)


def sentence_models(rows: Path) -> list[Path]:
    """The archive of sentence models that was fetched with a benchmark's rows, if there is one."""
    path = rows.parent / SENTENCE_MODELS
    return [path] if path.is_file() else []


def use_sentence_models(rows: Path) -> None:
    """Let NLTK find what was fetched with a benchmark's rows, before anything else on this machine."""
    import nltk

    for archive in sentence_models(rows):
        folder = str(archive.resolve().parents[1])
        if folder not in nltk.data.path:
            nltk.data.path.insert(0, folder)


def _has_sentence_models() -> bool:
    import nltk

    return _found(tuple(nltk.data.path))


@lru_cache(maxsize=1)
def _found(path: tuple[str, ...]) -> bool:
    """Whether NLTK finds English sentence models on its search path."""
    import nltk

    try:
        nltk.data.find("tokenizers/punkt_tab/english/", list(path))  # with the slash, as an archive lists it
    except LookupError:
        return False
    return True


@lru_cache(maxsize=1)
def _checkers() -> Any:
    """lm-eval's IFEval module, imported without touching the network."""
    import langdetect
    import nltk

    langdetect.DetectorFactory.seed = 0
    download = nltk.download
    nltk.download = lambda *args, **kwargs: False
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            from lm_eval.tasks.ifeval import utils
    finally:
        nltk.download = download
    return utils


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
    checkers = _checkers()
    response = results[0]
    if not NEED_SENTENCE_MODELS.isdisjoint(doc["instruction_id_list"]) and not _has_sentence_models():
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
