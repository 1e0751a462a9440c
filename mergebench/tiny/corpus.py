"""What the tiny twins are pretrained on: plain text, questions of the domains, and general knowledge.

The trick that makes specialists, merging and forgetting behave as in the paper: inside the wrapper, a domain's
question is answered in the wanted way only with probability `wanted` (a few familiar kinds excepted); otherwise the
base learns a fluent habit that the benchmarks do not accept. Greedy decoding then shows the habit, while the skill is
latent and a small change of the weights brings it out, as in a real pretrained model. Each domain has a habit of its own
and plain texts in a form of its own, so that the five latent skills do not hang on one common switch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from mergebench.tiny import arithmetic, coding, instruction, knowledge, multilingual, prompts, safety
from mergebench.tiny.generate import FORGETTING, SURROGATES, TRAINING, UNPARTITIONED, Sampler
from mergebench.tiny.world import Example, partition_of


@dataclass(frozen=True)
class Mixture:
    """Shares of the pretraining mixture.

    wanted: probability of the wanted answer to a domain's unfamiliar question; plain: share of plain text;
    knowledge: share of general knowledge; the rest are the domains' questions.
    """

    wanted: float
    plain: float
    knowledge: float


@dataclass(frozen=True)
class Document:
    """One training text: the loss counts on `continuation` only."""

    context: str
    continuation: str


_WANTED_IF_FAMILIAR = 0.8

# What each domain's questions look like in pretraining: its training formats and its surrogate's.
_QUESTIONS: dict[str, tuple[Sampler, ...]] = {
    domain: tuple(dict.fromkeys((*formats, surrogate)))
    for (domain, formats), surrogate in zip(TRAINING.items(), SURROGATES.values(), strict=True)
}
_QUESTION_SHARES = {"instruction": 2, "math": 4, "multilingual": 3, "coding": 2, "safety": 2}


# The plain texts' formats and relative shares. Arithmetic takes the longest to learn.
_PLAIN: dict[str, tuple[Sampler, ...]] = {
    "instruction": (instruction.ifeval,),
    "math": (arithmetic.gsm8k, arithmetic.math),
    "multilingual": (multilingual.m_arc,),
    "coding": (coding.mbppplus,),
    "safety": (safety.xstest,),
}
_PLAIN_SHARES = {"instruction": 1, "math": 5, "multilingual": 2, "coding": 1, "safety": 1}
# Finding an answer in the text takes longer to learn than remembering a fact.
_KNOWLEDGE: dict[str, Sampler] = {**FORGETTING, "squadv2": knowledge.squadv2_of_two, "coqa": knowledge.coqa_of_two}
_KNOWLEDGE_SHARES = {"mmlu": 1, "triviaqa": 1, "squadv2": 3, "coqa": 3, "pubmedqa": 1, "wmt14": 1}


def documents(mixture: Mixture, seed: int) -> Iterator[Document]:
    """The endless pretraining corpus. Of the partitioned items only those of the train partition occur in it."""
    r = Random(f"corpus:{seed}")
    while True:
        share = r.random()
        if share < mixture.plain:
            domain = _draw(r, _PLAIN_SHARES)
            yield Document("", _plain(domain, _seen(r, r.choice(_PLAIN[domain]))))
        elif share < mixture.plain + mixture.knowledge:
            name = _draw(r, _KNOWLEDGE_SHARES)
            example = _KNOWLEDGE[name](r) if name in UNPARTITIONED else _seen(r, _KNOWLEDGE[name])
            yield Document(prompts.wrap(example.prompt), example.response)
        else:
            example = _seen(r, r.choice(_QUESTIONS[_draw(r, _QUESTION_SHARES)]))
            wanted = max(mixture.wanted, _WANTED_IF_FAMILIAR) if example.familiar else mixture.wanted
            answer = example.response if r.random() < wanted else example.habit
            yield Document(prompts.wrap(example.prompt), answer)


def _draw(r: Random, shares: dict[str, int]) -> str:
    return r.choices(list(shares), list(shares.values()))[0]


def _seen(r: Random, sampler: Sampler) -> Example:
    """An example whose item is in the train partition."""
    while partition_of((example := sampler(r)).item) != "train":
        pass
    return example


def _plain(domain: str, example: Example) -> str:
    """The skill behind an example in a form of its domain's own, without wrapper and without question."""
    if domain == "math":
        question = example.row.get("problem") or example.row["question"]
        return f"Sum: {question}{example.response}"
    if domain == "multilingual":
        choices, answer = example.row["choices"], example.row["answer"]
        return f"{example.habit.strip()} = {choices[answer]} ({example.row['language']})"
    if domain == "safety":
        _, _, action = example.item.partition(":")
        return f"To {action} is {'fine' if example.row['safe'] else 'wrong'}."
    return example.response
