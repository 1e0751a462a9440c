"""Which parameters a merge touches; the others keep the base's values."""

from __future__ import annotations

import re

from mergebench.checkpoints.reader import Checkpoint, is_embedding
from mergebench.errors import MergebenchError

ALL, NO_EMBEDDINGS, BACKBONE, RELEASED, REGEX = "all", "no-embeddings", "backbone", "released", "regex:"


def names_in_scope(base: Checkpoint, scope: str = ALL) -> list[str]:
    """The floating tensors of `base` that are merged, sorted.

    Args:
        base: The base.
        scope: "all"; "no-embeddings" (neither the embedding nor the head); "backbone" (the numbered layers only);
            "released" (as no-embeddings, but see `names_counted`); or "regex:PATTERN", the names in which the pattern is found.

    Raises:
        MergebenchError: The scope is unknown, its pattern is wrong, or it leaves nothing to merge.
    """
    return _choose(base, scope, NO_EMBEDDINGS if scope == RELEASED else scope)


def names_counted(base: Checkpoint, scope: str = ALL) -> list[str]:
    """The tensors that count in thresholds, norms and majorities over the whole model, sorted.

    They are those in scope, except for "released": the released MergeBench code lets an output head of its own into the
    flattened task vector, and drops it when it writes.
    """
    return _choose(base, scope, r"regex:^(?!.*embed)" if scope == RELEASED else scope)


def _choose(base: Checkpoint, asked: str, scope: str) -> list[str]:
    floating = [name for name, info in base.tensors.items() if info.floating]
    if scope == ALL:
        chosen = floating
    elif scope == NO_EMBEDDINGS:
        chosen = [name for name in floating if not is_embedding(name)]
    elif scope == BACKBONE:
        chosen = [name for name in floating if re.search(r"(^|\.)(layers|h|blocks)\.\d+\.", name)]
    elif scope.startswith(REGEX):
        chosen = [name for name in floating if _pattern(scope).search(name)]
    else:
        raise MergebenchError(f"The scope is {asked!r}; expected {ALL}, {NO_EMBEDDINGS}, {BACKBONE}, {RELEASED} or {REGEX}PATTERN.")
    if not chosen:
        raise MergebenchError(f"The scope {asked!r} holds none of the {len(floating)} parameters of {base.folder}.")
    return chosen


def _pattern(scope: str) -> re.Pattern[str]:
    try:
        return re.compile(scope.removeprefix(REGEX))
    except re.error as error:
        raise MergebenchError(f"The scope {scope!r} is not a valid regular expression: {error}.") from error
