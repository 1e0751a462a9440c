"""Which parameters a merge touches; the others keep the base's values and count in no threshold."""

from __future__ import annotations

import re

from mergebench.checkpoints.reader import Checkpoint, is_embedding
from mergebench.errors import MergebenchError

ALL, NO_EMBEDDINGS, BACKBONE, REGEX = "all", "no-embeddings", "backbone", "regex:"


def names_in_scope(base: Checkpoint, scope: str = ALL) -> list[str]:
    """The floating tensors of `base` that are merged, sorted.

    Args:
        base: The base.
        scope: "all"; "no-embeddings" (neither the embedding nor the head); "backbone" (the numbered layers only); or
            "regex:PATTERN", the names in which the pattern is found.

    Raises:
        MergebenchError: The scope is unknown, its pattern is wrong, or it leaves nothing to merge.
    """
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
        raise MergebenchError(f"The scope is {scope!r}; expected {ALL}, {NO_EMBEDDINGS}, {BACKBONE} or {REGEX}PATTERN.")
    if not chosen:
        raise MergebenchError(f"The scope {scope!r} holds none of the {len(floating)} parameters of {base.folder}.")
    return chosen


def _pattern(scope: str) -> re.Pattern[str]:
    try:
        return re.compile(scope.removeprefix(REGEX))
    except re.error as error:
        raise MergebenchError(f"The scope {scope!r} is not a valid regular expression: {error}.") from error
