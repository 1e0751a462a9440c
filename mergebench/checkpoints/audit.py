"""Can these models be merged? An audit of headers, configurations and tokenizers; no weight is read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

from mergebench.checkpoints.reader import Checkpoint, is_embedding
from mergebench.checkpoints.vocabulary import Vocabulary as Vocabulary
from mergebench.checkpoints.vocabulary import merged_rows
from mergebench.errors import MergebenchError


@dataclass(frozen=True)
class Finding:
    """One difference between a specialist and its base.

    Attributes:
        check: quantised | tensors | shapes | dtypes | heads | vocabulary | tokenizer | config.
        fatal: Whether merging must be refused.
        message: One sentence: what was found, what was expected, what to do.
    """

    check: str
    fatal: bool
    message: str

    def record(self) -> dict[str, object]:
        """The finding as a JSON-able map."""
        return asdict(self)


def audit(base: Checkpoint, specialist: Checkpoint, name: str, *, vocabulary: Vocabulary = "refuse") -> list[Finding]:
    """Compare a specialist with its base, from headers alone.

    Args:
        base: The common ancestor.
        specialist: The fine-tuned model.
        name: How to call the specialist in messages.
        vocabulary: What to do with embedding rows that only some models have. "refuse" is fatal; "base" merges the rows that the base has
            and drops the others; "truncate" keeps the rows that all have, "union" those that any has, see `checkpoints.vocabulary`.

    Returns:
        Findings, the fatal ones first.
    """
    findings = [
        *_quantised(base, "the base"),
        *_quantised(specialist, name),
        *_tensor_names(base, specialist, name),
        *_heads(base, specialist, name),
        *_shapes(base, specialist, name, vocabulary),
        *_dtypes(base, specialist, name),
        *_tokenizers(base, specialist, name),
        *_configs(base, specialist, name),
    ]
    return sorted(findings, key=lambda finding: not finding.fatal)


def require_mergeable(
    base: Checkpoint, specialists: Mapping[str, Checkpoint], *, vocabulary: Vocabulary = "refuse"
) -> dict[str, list[Finding]]:
    """Audit every specialist; the findings by name if none is fatal.

    Raises:
        MergebenchError: With the first fatal finding.
    """
    found = {name: audit(base, model, name, vocabulary=vocabulary) for name, model in specialists.items()}
    fatal = [finding for findings in found.values() for finding in findings if finding.fatal]
    if fatal:
        more = f" ({len(fatal) - 1} more problems like this.)" if len(fatal) > 1 else ""
        raise MergebenchError(fatal[0].message + more)
    merged_rows(base, specialists, vocabulary)
    return found


def _quantised(model: Checkpoint, name: str) -> Iterable[Finding]:
    settings = model.config.get("quantization_config")
    if settings:
        kind = settings.get("quant_method", "an unnamed method") if isinstance(settings, dict) else "an unnamed method"
        yield Finding("quantised", True, f"{name} is quantised with {kind} ({model.folder}): use the unquantised weights.")


def _tensor_names(base: Checkpoint, specialist: Checkpoint, name: str) -> Iterable[Finding]:
    head = {tensor for tensor in {*base.tensors} ^ {*specialist.tensors} if is_embedding(tensor)}
    missing = sorted({*base.tensors} - {*specialist.tensors} - head)
    extra = sorted({*specialist.tensors} - {*base.tensors} - head)
    if missing or extra:
        yield Finding(
            "tensors",
            True,
            f"{name} lacks {len(missing)} tensors of the base{_first(missing)} and has {len(extra)} others{_first(extra)}; "
            "expected the same set: use a fine-tune of this base, with adapters folded in.",
        )


def _heads(base: Checkpoint, specialist: Checkpoint, name: str) -> Iterable[Finding]:
    if base.tied != specialist.tied:
        words = {True: "tied to the embedding", False: "a tensor of its own"}
        yield Finding(
            "heads",
            True,
            f"The output head of {name} is {words[specialist.tied]}, that of the base is {words[base.tied]}; "
            "save both models with the same tie_word_embeddings.",
        )


def _shapes(base: Checkpoint, specialist: Checkpoint, name: str, vocabulary: Vocabulary) -> Iterable[Finding]:
    for tensor in sorted(base.tensors.keys() & specialist.tensors.keys()):
        expected, found = base.tensors[tensor].shape, specialist.tensors[tensor].shape
        if expected == found:
            continue
        if not (is_embedding(tensor) and expected[1:] == found[1:]):
            yield Finding(
                "shapes",
                True,
                f"{name} has {tensor} of shape {list(found)}, the base {list(expected)}; use a fine-tune of this base.",
            )
        elif found[0] < expected[0]:
            advice = {
                "refuse": 'set vocabulary to "truncate" to keep the rows that all have, or "union" to keep the base\'s where it lacks them',
                "base": 'the missing rows cannot be merged: set vocabulary to "truncate" or "union"',
                "truncate": "the rows that all models have are merged, the others dropped",
                "union": "it has not moved the others",
            }
            yield Finding(
                "vocabulary",
                vocabulary in ("refuse", "base"),
                f"{name} has {found[0]:,} rows in {tensor}, fewer than the base's {expected[0]:,}; {advice[vocabulary]}.",
            )
        else:
            advice = {
                "refuse": 'set vocabulary to "base" to merge the rows that the base has and drop the others',
                "base": "the rows that the base has are merged, the others dropped",
                "truncate": "the rows that all models have are merged, the others dropped",
                "union": "the others are taken from the specialists that have them",
            }
            yield Finding(
                "vocabulary",
                vocabulary == "refuse",
                f"{name} has {found[0]:,} rows in {tensor}, the base {expected[0]:,}; {advice[vocabulary]}.",
            )


def _dtypes(base: Checkpoint, specialist: Checkpoint, name: str) -> Iterable[Finding]:
    shared = base.tensors.keys() & specialist.tensors.keys()
    kinds = sorted(tensor for tensor in shared if base.tensors[tensor].floating != specialist.tensors[tensor].floating)
    if kinds:
        yield Finding(
            "dtypes",
            True,
            f"{name} stores {kinds[0]} as {specialist.tensors[kinds[0]].dtype}, the base as {base.tensors[kinds[0]].dtype}; "
            "quantised models cannot be merged: use the unquantised weights.",
        )
    elif base.dtypes != specialist.dtypes:
        yield Finding(
            "dtypes",
            False,
            f"{name} is stored in {_list(specialist.dtypes)}, the base in {_list(base.dtypes)}; "
            "arithmetic is in float32 and the result takes the base's.",
        )


def _tokenizers(base: Checkpoint, specialist: Checkpoint, name: str) -> Iterable[Finding]:
    expected, found = base.vocabulary, specialist.vocabulary
    if expected is None or found is None:
        side = "the base" if expected is None else name
        yield Finding("tokenizer", False, f"{side} has no tokenizer.json, so token ids could not be compared.")
        return
    moved = sorted(token for token, place in expected.items() if found.get(token, place) != place)
    # The same id for another token: the row means something else, even if the old token is gone.
    owners = {place: token for token, place in expected.items()}
    taken = sorted(token for token, place in found.items() if place in owners and token not in expected)
    if moved or taken:
        example = moved[0] if moved else taken[0]
        yield Finding(
            "tokenizer",
            True,
            f"{name} gives {len(moved) + len(taken)} tokens an id that differs from the base's, {example!r} for one "
            f"({found[example]} against {expected.get(example, 'none')}); its embedding rows mean other tokens: "
            "re-order them or use a fine-tune that kept the tokenizer.",
        )
    elif len(found) != len(expected):
        yield Finding(
            "tokenizer",
            False,
            f"{name} knows {len(found):,} tokens, the base {len(expected):,}; shared tokens have the same ids, "
            "and the merged model uses the base's tokenizer.",
        )


def _configs(base: Checkpoint, specialist: Checkpoint, name: str) -> Iterable[Finding]:
    for key in ("architectures", "rope_scaling", "rope_theta", "rope_parameters", "eos_token_id"):
        expected, found = base.config.get(key), specialist.config.get(key)
        if expected != found:
            yield Finding("config", False, f"{name} has {key} {found!r}, the base {expected!r}; the base's is kept.")


def _first(names: list[str]) -> str:
    return f" ({names[0]} first)" if names else ""


def _list(names: set[str]) -> str:
    return " and ".join(sorted(names))
