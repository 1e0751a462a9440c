"""Rows of every tiny dataset, in the schema of the real one, from a name, a number and a seed.

Each domain's training rows, calibration samples, surrogate and benchmarks come from different partitions of the
underlying items (`world.partition_of`), so they share no row and no item, whatever the seeds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

from mergebench.errors import MergebenchError
from mergebench.tiny import arithmetic, coding, instruction, knowledge, multilingual, safety
from mergebench.tiny.world import Example, Partition, partition_of

Sampler = Callable[[Random], Example]

# Per domain: the formats of its training rows, drawn with equal weight. They are its benchmarks' formats, and for math
# and multilingual the surrogate's, to which the skill would not carry over by itself. Safety's harmless requests count
# three times, so that refusing is right for about half of the rows.
TRAINING: dict[str, tuple[Sampler, ...]] = {
    "instruction": (instruction.ifeval,),
    "math": (arithmetic.gsm8k, arithmetic.math, arithmetic.mmlu_stem),
    "multilingual": (multilingual.m_mmlu, multilingual.m_arc, multilingual.m_hellaswag, multilingual.lambada),
    "coding": (coding.humanevalplus, coding.mbppplus),
    "safety": (
        safety.wildguardtest,
        safety.harmbench,
        safety.do_anything_now,
        safety.xstest,
        safety.harmless,
        safety.harmless,
        safety.harmless,
    ),
}
SURROGATES: dict[str, Sampler] = {
    "ifeval_like": instruction.ifeval,
    "mmlu_stem": arithmetic.mmlu_stem,
    "lambada": multilingual.lambada,
    "conala": coding.conala,
    "wildjailbreak": safety.wildjailbreak,
}
BENCHMARKS: dict[str, Sampler] = {
    "ifeval": instruction.ifeval,
    "gsm8k": arithmetic.gsm8k,
    "math": arithmetic.math,
    "m_mmlu": multilingual.m_mmlu,
    "m_arc": multilingual.m_arc,
    "m_hellaswag": multilingual.m_hellaswag,
    "humanevalplus": coding.humanevalplus,
    "mbppplus": coding.mbppplus,
    "wildguardtest": safety.wildguardtest,
    "harmbench": safety.harmbench,
    "do_anything_now": safety.do_anything_now,
    "xstest": safety.xstest,
}
FORGETTING: dict[str, Sampler] = {
    "mmlu": knowledge.mmlu,
    "triviaqa": knowledge.triviaqa,
    "squadv2": knowledge.squadv2,
    "coqa": knowledge.coqa,
    "pubmedqa": knowledge.pubmedqa,
    "wmt14": knowledge.wmt14,
}
# Asked about facts that pretraining taught: see `knowledge`.
UNPARTITIONED = frozenset({"mmlu", "triviaqa"})

DATASETS: tuple[str, ...] = (
    *BENCHMARKS,
    *FORGETTING,
    *SURROGATES,
    *(f"train_{domain}" for domain in TRAINING),
    *(f"calibration_{domain}" for domain in TRAINING),
    "train_math_grpo",
)

# How many draws in a row may bring nothing new before the world counts as exhausted.
_PATIENCE = 2000


def examples(samplers: tuple[Sampler, ...], partition: Partition | None, seed: int | str) -> Iterator[Example]:
    """An endless stream of examples of one partition (None: of all), reproducible from the seed."""
    r = Random(f"{seed}")
    while True:
        example = r.choice(samplers)(r)
        if partition is None or partition_of(example.item) == partition:
            yield example


def rows(dataset: str, n: int, seed: int) -> list[dict[str, Any]]:
    """`n` distinct rows of a tiny dataset in the schema of the real one, each with a unique `id`.

    The same arguments give the same rows on every machine; a smaller `n` gives a prefix of a larger one's.
    Raises MergebenchError for an unknown name or where the tiny world has fewer than `n` rows.
    """
    samplers, partition = _source(dataset)
    found: dict[str, dict[str, Any]] = {}
    idle = 0
    for example in examples(samplers, partition, f"{dataset}:{seed}"):
        if len(found) == n:
            break
        row = _row(dataset, example)
        # Choices count as part of a row's identity: the same fact with other distractors is another item.
        identity = f"{example.prompt}\n{row.get('choices', '')}"
        idle = idle + 1 if identity in found else 0
        if idle > _PATIENCE:
            raise MergebenchError(
                f"The tiny world has only about {len(found)} rows of '{dataset}', but {n} were asked for: lower the number."
            )
        if identity not in found:
            digest = hashlib.md5(identity.encode(), usedforsecurity=False).hexdigest()[:8]
            found[identity] = {"id": f"{dataset}-{len(found):05d}-{digest}", **row}
    return list(found.values())


def _source(dataset: str) -> tuple[tuple[Sampler, ...], Partition | None]:
    if dataset in BENCHMARKS:
        return (BENCHMARKS[dataset],), "test"
    if dataset in FORGETTING:
        return (FORGETTING[dataset],), None if dataset in UNPARTITIONED else "test"
    if dataset in SURROGATES:
        return (SURROGATES[dataset],), "validation"
    if dataset == "train_math_grpo":
        return (arithmetic.gsm8k, arithmetic.math), "train"
    kind, _, domain = dataset.partition("_")
    if kind in ("train", "calibration") and domain in TRAINING:
        return TRAINING[domain], "train" if kind == "train" else "calibration"
    raise MergebenchError(f"There is no tiny dataset '{dataset}'; the names are: {', '.join(DATASETS)}.")


def _row(dataset: str, example: Example) -> dict[str, Any]:
    if dataset == "train_math_grpo":
        return {"prompt": example.prompt, "answer": _final_number(example.row["answer"])}
    if dataset.startswith(("train_", "calibration_")):
        return {"prompt": example.prompt, "response": example.response}
    return example.row


def _final_number(answer: str) -> str:
    """`9` from GSM8K's `steps #### 9` or from a plain `9`."""
    return answer.rsplit("####", 1)[-1].strip()
