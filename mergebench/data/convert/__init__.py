"""How records become rows: one function per published layout, the same for every source.

A converter takes the records of a dataset's parts and a seed (used only where something is drawn) and returns rows
in the dataset's schema (`mergebench.data.schema`).
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from mergebench.data.convert import coding, instruction, knowledge, mathematics, multilingual, safety
from mergebench.data.convert.selection import Filters, Tally, columns, select
from mergebench.data.records import Parts, Row
from mergebench.errors import MergebenchError

Converter = Callable[[Parts, int], list[Row]]

# The layout of the files on the hub and, where the authors' own files are laid out differently, theirs.
HUB: dict[str, Converter] = {
    "ifeval": instruction.ifeval,
    "ifeval_like": instruction.ifeval,
    "gsm8k": mathematics.gsm8k,
    "math": mathematics.math,
    "m_mmlu": multilingual.m_mmlu,
    "m_arc": multilingual.m_arc,
    "m_hellaswag": multilingual.m_hellaswag,
    "pud_prose": multilingual.prose_continuations,
    "humanevalplus": coding.humanevalplus,
    "mbppplus": coding.mbppplus,
    "wildguardtest": safety.wildguardtest,
    "harmbench": safety.harmbench,
    "do_anything_now": safety.do_anything_now,
    "xstest": safety.xstest,
    "wildjailbreak": safety.wildjailbreak,
    "mmlu": knowledge.mmlu,
    "mmlu_stem": knowledge.mmlu_stem,
    "triviaqa": knowledge.triviaqa,
    "squadv2": knowledge.squad_table,
    "coqa": knowledge.coqa,
    "pubmedqa": knowledge.pubmedqa,
    "wmt14": knowledge.wmt14_table,
    "conala": coding.conala,
    "lambada": knowledge.lambada,
}
# Training sets as published: named filters (the first is the default), each with a decision for every part.
FILTERS: dict[str, Filters] = {
    "train_instruction": {"all": {"rows": instruction.tulu_personas}},
    "train_math": {"all": {"rows": mathematics.dart_math}},
    "train_math_grpo": {"boxed": {"rows": mathematics.numina_tir}},
    "train_multilingual": {"benchmark_languages": {"rows": multilingual.aya}},
    "train_coding": {"all": {"rows": coding.magicoder}},
    "train_safety": {
        "sft": {"wildguard": safety.wildguard_sft, "wildjailbreak": safety.wildjailbreak_train},
        "paper": {"wildguard": safety.wildguard_all, "wildjailbreak": safety.wildjailbreak_train},
    },
}
# The authors' own files, and what stands in for training sets where they are not there.
LOCAL: dict[str, Converter] = {
    **HUB,
    "mmlu": knowledge.mmlu_tables,
    "triviaqa": knowledge.triviaqa_subsample,
    "squadv2": knowledge.squad_articles,
    "wmt14": knowledge.wmt14_segments,
    "train_instruction": instruction.open_instructions,
    "train_math": mathematics.gsm8k_supervised,
    "train_math_grpo": mathematics.gsm8k_reinforcement,
    "train_multilingual": multilingual.translations,
    "train_coding": coding.code_alpaca,
}


def convert(dataset: str, converters: dict[str, Converter], parts: Parts, seed: int) -> list[Row]:
    """The rows that a dataset's converter makes.

    Raises:
        MergebenchError: a record lacks what its layout has. Flat records say so themselves; what is nested in
            them (such as the paragraphs of an article) is reported with the dataset's parts.
    """
    with _as_published(dataset, parts):
        return converters[dataset](parts, seed)


def convert_training(dataset: str, entry: dict[str, Any], parts: Parts) -> tuple[list[Row], dict[str, Tally]]:
    """The rows of a published training set by the filter that its entry names (or the first), and what became of every record.

    A training set that this package does not know says in its entry which columns to read: ``fields: {prompt, response}``, and
    ``context`` where instructions have an input.
    """
    known = FILTERS.get(dataset)
    decisions = known[entry.get("filter") or next(iter(known))] if known else {part: columns(part, **entry["fields"]) for part in parts}
    with _as_published(dataset, parts):
        return select(decisions, parts)


@contextlib.contextmanager
def _as_published(dataset: str, parts: Parts) -> Iterator[None]:
    try:
        yield
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        places = ", ".join(sorted({records[0].where.rpartition(", ")[0] or records[0].where for records in parts.values()}))
        raise MergebenchError(
            f"{dataset}: {places} is not laid out as its authors publish it ({type(error).__name__}: {error}); get it again."
        ) from error
