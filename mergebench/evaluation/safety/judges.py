"""The judges by name."""

from pathlib import Path
from typing import Any

from mergebench.errors import MergebenchError, nearest
from mergebench.evaluation.safety.harmbench import FORMS as HARMBENCH
from mergebench.evaluation.safety.keyword import KeywordJudge
from mergebench.evaluation.safety.labels import Judge
from mergebench.evaluation.safety.model_judge import MAX_LENGTH, ModelJudge
from mergebench.evaluation.safety.wildguard import FORM as WILDGUARD

FORMS = {form.name: form for form in (WILDGUARD, *HARMBENCH)}
NAMES = (KeywordJudge.name, *FORMS)


def check(name: str) -> None:
    """Raise for a judge that is not known."""
    if name not in NAMES:
        raise MergebenchError(f"evaluation.judge is {name!r}, which is not a judge; {nearest(name, list(NAMES))}.")


def reads(name: str) -> tuple[str, ...]:
    """Which of ``request``, ``refusal`` and ``harm`` a judge labels."""
    check(name)
    return FORMS[name].reads if name in FORMS else KeywordJudge.reads


def create(
    name: str,
    *,
    weights: Path | None = None,
    backend: str = "transformers",
    dtype: str = "bfloat16",
    max_length: int = MAX_LENGTH,
    **settings: Any,
) -> Judge:
    """A judge.

    Args:
        name: one of `NAMES`.
        weights: Hugging Face folder of a judge that is a model.
        backend: the evaluation backend that runs it.
        dtype: of its weights in memory.
        max_length: tokens that its prompt and label may take.
        settings: further arguments of the backend, which cannot change a label.
    """
    check(name)
    if name not in FORMS:
        return KeywordJudge()
    if weights is None:
        raise MergebenchError(
            f"the judge {name} is a model, and no folder with its weights was given; fetch it (rule fetch_judge), or set evaluation.judge "
            "to keyword, which needs no model."
        )
    return ModelJudge(FORMS[name], weights, backend=backend, dtype=dtype, max_length=max_length, settings=settings)
