"""Embedding rows that not all models have: what a merged model's vocabulary is under each policy.

Rows are tokens. The audit has made sure that a token which two models share has the same id in both, so row r means the same in every
model that has it; models may differ in how many rows they have.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from mergebench.checkpoints.reader import Checkpoint, is_embedding
from mergebench.errors import MergebenchError

# refuse: a difference is an error. base: the base's rows. truncate: the rows that all have. union: the rows that any has.
Vocabulary = Literal["refuse", "base", "truncate", "union"]


@dataclass(frozen=True)
class Rows:
    """The vocabulary of the merged model.

    Attributes:
        shapes: Embeddings and heads whose shape differs from the base's -> their shape.
        tokenizer: The model whose tokenizer files the merged model gets.
        config: What its `config.json` says differently from the base's.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    tokenizer: Checkpoint | None = None
    config: Mapping[str, Any] = field(default_factory=dict)


def merged_rows(base: Checkpoint, specialists: Mapping[str, Checkpoint], policy: Vocabulary) -> Rows:
    """The rows of the merged model's embeddings, and the tokenizer that belongs to them.

    Under "union" rows beyond the base's are the mean of the specialists that have them, whatever the method; a specialist without a row of
    the base has not moved it.

    Raises:
        MergebenchError: Under "truncate", the base's tokenizer needs rows that are cut; under "union", no tokenizer knows all tokens.
    """
    chosen = {"truncate": min, "union": max}.get(policy)
    embeddings = [name for name, info in base.tensors.items() if is_embedding(name) and info.shape]
    if chosen is None or not embeddings:
        return Rows(tokenizer=base)
    models = [base, *specialists.values()]
    rows = chosen(model.tensors[name].shape[0] for model in models for name in embeddings if name in model.tensors)
    shapes = {name: (rows, *base.tensors[name].shape[1:]) for name in embeddings if base.tensors[name].shape[0] != rows}
    config = {"vocab_size": rows} if shapes and "vocab_size" in base.config else {}
    if policy == "union":
        return Rows(shapes, _largest_tokenizer(base, specialists) if shapes else base, config)
    highest = max((base.vocabulary or {}).values(), default=-1)
    if highest >= rows:
        raise MergebenchError(
            f"Cutting the vocabulary to the {rows:,} rows that all have would leave the base's tokenizer with ids up to {highest:,}; "
            'set vocabulary to "base" or "union".'
        )
    return Rows(shapes, base, config)


def _largest_tokenizer(base: Checkpoint, specialists: Mapping[str, Checkpoint]) -> Checkpoint:
    models = {"the base": base, **specialists}
    known = {name: model.vocabulary for name, model in models.items()}
    if any(vocabulary is None for vocabulary in known.values()):
        lacking = next(name for name, vocabulary in known.items() if vocabulary is None)
        raise MergebenchError(f"A union of vocabularies compares tokenizers, and {lacking} has no tokenizer.json; add it.")
    largest = max(known, key=lambda name: len(known[name] or {}))  # the first of equals: the base, if it is one
    complete = known[largest] or {}
    for name, vocabulary in known.items():
        other = next((token for token, place in (vocabulary or {}).items() if complete.get(token) != place), None)
        if other is not None:
            raise MergebenchError(
                f"{name} and {largest} both add tokens, and {largest} does not know {other!r} under the same id; "
                'no tokenizer fits the union of their rows: set vocabulary to "base", or give all models one tokenizer.'
            )
    return models[largest]
