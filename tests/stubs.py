"""Two language models without weights: one answers every item with its gold answer, one with rubbish.

They look at the document behind each request, so that they work with any benchmark, tiny or real. The gold model shows a
scorer's ceiling and the rubbish model its floor. Answers are cut at the request's stop strings, as a real model's would be.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from lm_eval.api.instance import Instance
from lm_eval.api.model import LM

from tests.instruction_oracle import follow

REFUSAL = "I cannot help with that."
COMPLIANCE = "Sure. Here is what you asked for."
NONSENSE = "zzqx vrrk"


class Stub(LM):
    """Shared plumbing; prompts pass through any chat template unchanged."""

    tokenizer_name = "stub"

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        return "".join(message["content"] for message in chat_history)

    @abstractmethod
    def answer(self, task: str, doc: dict[str, Any]) -> str:
        """The text to generate."""

    @abstractmethod
    def likely(self, task: str, doc: dict[str, Any], index: int) -> bool:
        """Whether this continuation is the most probable one."""

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        texts = []
        for request in requests:
            text = self.answer(str(request.task_name), request.doc)
            for stop in request.args[1].get("until", []):
                text = text.split(stop)[0]
            texts.append(text)
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        hits = [self.likely(str(r.task_name), r.doc, r.idx) for r in requests]
        return [(0.0 if hit else -100.0 * len(r.args[1]), hit) for r, hit in zip(requests, hits, strict=True)]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        return [0.0 for _ in requests]


def gold_choice(task: str, doc: dict[str, Any]) -> int:
    """Index of the right choice; of SQuAD's two requests, the second asks for "unanswerable"."""
    if task == "lambada":
        return 0
    if task == "pubmedqa":
        return ("yes", "no", "maybe").index(doc["answer"])
    return int(doc["answer"])


def _without_stops(doc: dict[str, Any]) -> str:
    """An alias that holds no stop character of TriviaQA, if there is one."""
    return next((a for a in doc["aliases"] if not any(stop in a for stop in "\n.,")), doc["aliases"][0])


GOLD: dict[str, Callable[[dict[str, Any]], str]] = {
    "ifeval": follow,
    "ifeval_like": follow,
    "gsm8k": lambda doc: f" The answer is {doc['answer'].split('####')[-1].strip()}.",
    "math": lambda doc: f" The answer is $\\boxed{{{doc['answer']}}}$.",
    "humanevalplus": lambda doc: doc["canonical_solution"],
    "mbppplus": lambda doc: doc["code"].strip(),
    "triviaqa": _without_stops,
    "squadv2": lambda doc: doc["answers"][0] if doc["answers"] else "unanswerable",
    "coqa": lambda doc: doc["answers"][-1][0],
    "wmt14": lambda doc: doc["target"],
    "conala": lambda doc: doc["snippet"],
    "xstest": lambda doc: COMPLIANCE if doc["safe"] else REFUSAL,
    **dict.fromkeys(("wildguardtest", "harmbench", "do_anything_now", "wildjailbreak"), lambda doc: REFUSAL),
}
RUBBISH: dict[str, Callable[[dict[str, Any]], str]] = {
    # Any text follows some instructions, such as "use no commas"; only silence follows none.
    "ifeval": lambda doc: "",
    "ifeval_like": lambda doc: "",
    "humanevalplus": lambda doc: "    return zzqx",
    "xstest": lambda doc: REFUSAL if doc["safe"] else COMPLIANCE,
    **dict.fromkeys(("wildguardtest", "harmbench", "do_anything_now", "wildjailbreak"), lambda doc: COMPLIANCE),
}


class GoldModel(Stub):
    """Answers every item rightly."""

    def answer(self, task: str, doc: dict[str, Any]) -> str:
        return GOLD[task](doc)

    def likely(self, task: str, doc: dict[str, Any], index: int) -> bool:
        return not doc["answers"] if task == "squadv2" else index == gold_choice(task, doc)


class RubbishModel(Stub):
    """Answers every item wrongly."""

    def answer(self, task: str, doc: dict[str, Any]) -> str:
        return RUBBISH.get(task, lambda doc: NONSENSE)(doc)

    def likely(self, task: str, doc: dict[str, Any], index: int) -> bool:
        if task == "squadv2":
            return bool(doc["answers"])
        if task == "lambada":
            return False
        count = 3 if task == "pubmedqa" else len(doc["choices"])
        return index == (gold_choice(task, doc) + 1) % count
