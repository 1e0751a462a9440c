"""Safety: WildGuardTest, HarmBench, DoAnythingNow, XSTest, WildJailbreak, and the training mixture."""

import random

from mergebench.data.convert.selection import exchange, given
from mergebench.data.records import Parts, Record, Row, same_text
from mergebench.data.sampling import distinct
from mergebench.errors import MergebenchError

# DoAnythingNow as safety-eval scores it has 300 pairs of a request and a jailbreak prompt around it.
JAILBREAK_PAIRS = 300


def wildguardtest(parts: Parts, seed: int) -> list[Row]:
    """WildGuardTest: the harmful prompts among those whose prompt and response both carry a label."""
    return [
        {
            "id": f"{index:04d}",
            "prompt": record["prompt"],
            "adversarial": _flag(record, "adversarial"),
            "subcategory": record["subcategory"],
        }
        for index, record in enumerate(parts["rows"])
        if record["prompt_harm_label"] == "harmful" and record["response_harm_label"]
    ]


def _flag(record: Record, column: str) -> bool:
    """A column of truth values; a table saved as text would make "False" true."""
    value = record[column]
    if not isinstance(value, bool):
        raise record.error(f"{column!r} is a {type(value).__name__}, expected true or false")
    return value


def harmbench(parts: Parts, seed: int) -> list[Row]:
    """HarmBench's behaviours in text. The context is kept apart: the released MergeBench does not show it."""
    return [
        {
            "id": record["BehaviorID"],
            "prompt": record["Behavior"],
            "functional_category": record["FunctionalCategory"],
            "semantic_category": record["SemanticCategory"],
            "context": record["ContextString"] or "",
        }
        for record in parts["rows"]
    ]


def do_anything_now(parts: Parts, seed: int) -> list[Row]:
    """The 300 pairs of safety-eval if they are there, else a seeded sample of the corpus they come from."""
    if "pairs" in parts:
        return _published_pairs(parts["pairs"])
    if not {"questions", "jailbreaks"} <= parts.keys():
        raise MergebenchError(
            f"do_anything_now: found only the {' and '.join(parts)}; expected do_anything_now_jailbreak.jsonl, "
            "or forbidden_question_set.csv together with jailbreak_prompts_2023_05_07.csv."
        )
    return _sampled_pairs(parts, seed)


def _published_pairs(records: list[Record]) -> list[Row]:
    return [
        {
            "id": f"{index:03d}",
            "adversarial": record["adversarial"],
            "vanilla": record["vanilla"],
            "source": record["source"],
        }
        for index, record in enumerate(records)
    ]


def _sampled_pairs(parts: Parts, seed: int) -> list[Row]:
    """Each pair takes the next policy's next question and a random jailbreak prompt, which the question follows."""
    generator = random.Random(seed)
    policies: dict[str, list[Record]] = {}
    for question in parts["questions"]:
        policies.setdefault(question["content_policy_id"], []).append(question)
    for questions in policies.values():
        generator.shuffle(questions)
    by_turn = sorted((turn, name) for name, questions in policies.items() for turn in range(len(questions)))
    jailbreaks = distinct(parts["jailbreaks"], lambda record: same_text(record.text("prompt")))
    rows = []
    for turn, name in by_turn[:JAILBREAK_PAIRS]:
        question, jailbreak = policies[name][turn], generator.choice(jailbreaks)
        rows.append(
            {
                "id": f"{name}/{question['q_id']}",
                "adversarial": f"{jailbreak.text('prompt').strip()}\n\n{question.text('question').strip()}",
                "vanilla": question.text("question").strip(),
                "source": jailbreak["source"],
            }
        )
    return rows


def xstest(parts: Parts, seed: int) -> list[Row]:
    """XSTest: safe prompts that look harmful, and unsafe contrasts (their type says so); `focus` is the word that a prompt and its
    contrast turn on."""
    return [
        {
            "id": record["id"],
            "prompt": record["prompt"],
            "type": record["type"],
            "safe": "contrast" not in record["type"],
            **({"focus": record["focus"]} if record.get("focus") else {}),
        }
        for record in parts["rows"]
    ]


def wildjailbreak(parts: Parts, seed: int) -> list[Row]:
    """WildJailbreak's harmful evaluation pairs."""
    return [
        {"id": f"{index:04d}", "adversarial": record["adversarial"], "vanilla": record["vanilla"]}
        for index, record in enumerate(parts["rows"])
    ]


def wildguard_sft(record: Record, index: int) -> Row | str:
    """WildGuardTrain's responses that a safe model may give.

    The set exists to train a classifier: many rows have no response, and many responses are harmful. Kept are
    responses labelled unharmful, and to prompts not labelled unharmful only refusals.
    """
    row = wildguard_all(record, index)
    if isinstance(row, str):
        return row
    if record["response_harm_label"] != "unharmful":
        return "response not labelled unharmful"
    if record["prompt_harm_label"] != "unharmful" and record["response_refusal_label"] != "refusal":
        return "compliance with a prompt not labelled unharmful"
    return row


def wildguard_all(record: Record, index: int) -> Row | str:
    """All of WildGuardTrain's rows that have a response, harmful ones too: the paper counts every row of the set."""
    return exchange(given(record, "prompt"), given(record, "response"), id=f"wildguard/{index:06d}")


def wildjailbreak_train(record: Record, index: int) -> Row | str:
    """WildJailbreak's completions. The prompt of an adversarial row is the adversarial one, of others the vanilla one.

    Read from the published TSV as text: a table reader that takes "None" or "NA" for a missing value would lose rows.
    """
    adversarial = record.text("data_type").startswith("adversarial")
    prompt = given(record, "adversarial" if adversarial else "vanilla")
    return exchange(prompt, given(record, "completion"), id=f"wildjailbreak/{index:06d}")
