"""Miniature data folders: a few hand-written records per dataset, in the files and formats of their authors."""

import csv
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

LANGUAGES = ("fr", "es", "de", "ru")


def jsonl(path: Path, records: Sequence[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode(), mtime=0))
    else:
        path.write_text(text, encoding="utf-8")


def document(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def table(path: Path, header: list[str] | None, lines: Sequence[Sequence[Any]], delimiter: str = ",") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, delimiter=delimiter)
        writer.writerows([*([header] if header else []), *lines])


def parquet(path: Path, records: list[dict[str, Any]]) -> None:
    import pyarrow
    import pyarrow.parquet

    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(records), path)


def write_instruction(root: Path) -> None:
    records = [
        {
            "key": 1000 + i,
            "prompt": f"Write about the number {i} without commas.",
            "instruction_id_list": ["punctuation:no_comma", "length_constraints:number_words"],
            "kwargs": [{}, {"relation": "at least", "num_words": 3 + i}],
        }
        for i in range(5)
    ]
    jsonl(root / "ifeval/input_data.jsonl", records)
    like = [{**record, "key": i, "prompt": f"Like {i}", "kwargs": json.dumps(record["kwargs"])} for i, record in enumerate(records)]
    # One prompt of the test set has crept in, in another case.
    like[4]["prompt"] = records[2]["prompt"].upper()
    jsonl(root / "ifeval_like/filtered.jsonl", like)
    alpaca = [{"instruction": f"Say {i}.", "input": "loudly" if i else "", "output": f"{i}!"} for i in range(4)]
    document(root / "standin_sft/alpaca_en_demo.json", [*alpaca, alpaca[0]])
    seeds = [{"id": "seed_task_0", "instruction": "Add.", "instances": [{"input": "1 1", "output": "2"}, {"input": "2 2", "output": "4"}]}]
    jsonl(root / "standin_sft/self_instruct_seed_tasks.jsonl", seeds)


def write_mathematics(root: Path) -> None:
    jsonl(
        root / "gsm8k/test.jsonl",
        [{"question": f"What is {i} plus one?", "answer": f"It is {i}+1=<<{i}+1={i + 1}>>{i + 1}.\n#### {i + 1}"} for i in range(5)],
    )
    jsonl(
        root / "gsm8k/train.jsonl",
        [{"question": f"What is {i} times 1,000?", "answer": f"<<{i}*1000={i}000>>{i},000 in all.\n#### {i},000"} for i in range(1, 41)],
    )
    jsonl(
        root / "math/math500_test.jsonl",
        [
            {
                "problem": f"Halve ${i}$.",
                "solution": f"So $\\boxed{{\\frac{{{i}}}{{2}}}}$.",
                "answer": f"\\frac{{{i}}}{{2}}",
                "subject": ["Algebra", "Geometry"][i % 2],
                "level": 1 + i,
                "unique_id": f"test/algebra/{i}.json",
            }
            for i in range(5)
        ],
    )


def write_multilingual(root: Path) -> None:
    for language in LANGUAGES[:2]:
        options = {"option_a": "un", "option_b": "deux", "option_c": "trois", "option_d": "quatre"}
        mmlu = [{"instruction": f"Question {i} ?", **options, "answer": "ABCD"[i % 4], "id": f"anatomy/val/{i}"} for i in range(5)]
        document(root / f"m_mmlu/{language}_val.json", mmlu)
        arc = [{"id": f"ARC/{i}", "answer": "C", "instruction": f"Pourquoi {i} ?", **options} for i in range(4)]
        three = {key: options[key] for key in ("option_a", "option_b", "option_c")}
        arc.append({"id": "ARC/4", "answer": "B", "instruction": "Combien [title] ?", **three})
        document(root / f"m_arc/{language}_test.json", arc)
    endings = [f"{letter} [note]" for letter in "abcd"]
    hellaswag = [{"activity_label": "Cuisine", "ctx_a": "Elle coupe.", "ctx_b": "puis elle", "endings": endings, "label": "2"}]
    document(root / "m_hellaswag/fr_validation.json", hellaswag * 5)
    for language in ("en", *LANGUAGES):
        lines = []
        for i in range(40):
            sentence = " ".join(f"{language}{i}w{w}" for w in range(10 if i % 5 else 4))
            lines += [f"# newdoc id = n{i:05d}", f"# sent_id = n{i:05d}001", f"# text = {sentence}", f"1\t{language}{i}w0\t_", ""]
        path = root / f"prose_ud_pud/{language}_pud-ud-test.conllu"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("\n".join(lines), encoding="utf-8")


def write_coding(root: Path) -> None:
    test = (
        "def check(candidate):\n    inputs, results = [[1], [2]], [2, 3]\n"
        "    for i, r in zip(inputs, results):\n        assert candidate(*i) == r\n"
    )
    jsonl(
        root / "humanevalplus/HumanEvalPlus-OriginFmt.jsonl.gz",
        [
            {
                "task_id": f"HumanEval/{i}",
                "prompt": 'def up(x):\n    """Add one."""\n',
                "canonical_solution": "\n\n    return x + 1\n\n",
                "entry_point": "up",
                "test": f"\n\n{test}\n" + ("check(up)" if i else ""),
            }
            for i in range(5)
        ],
    )
    jsonl(
        root / "mbppplus/MbppPlus-OriginFmt.jsonl.gz",
        [
            {
                "task_id": i,
                "code": "def root(x):\n    return math.sqrt(x)\n",
                "prompt": "Write a function that takes the root.",
                "source_file": "questions.ipynb",
                "test_imports": ["import math"],
                "test_list": ["assert root(4) == 2"],
                "test": "assert root(9) == 3\n",
            }
            for i in range(5)
        ],
    )
    conala = [{"intent": "How to sort?", "rewritten_intent": "sort `x`", "snippet": "x.sort()", "question_id": 7} for _ in range(4)]
    document(root / "conala/conala-test.json", [*conala, {**conala[0], "rewritten_intent": None}])
    alpaca = [{"instruction": f"Print {i}.", "input": "", "output": f"print({i})"} for i in range(5)]
    document(root / "standin_sft/code_alpaca_2k.json", [*alpaca, {"instruction": "Nothing.", "input": "", "output": ""}])


def write_safety(root: Path) -> None:
    header = ["Behavior", "FunctionalCategory", "SemanticCategory", "Tags", "ContextString", "BehaviorID"]
    kinds = ["standard", "contextual", "copyright"]
    behaviours = [[f"Harmless\nrequest {i}", kinds[i % 3], "illegal", "", "text" if i % 3 == 1 else "", f"b{i}"] for i in range(5)]
    table(root / "harmbench/harmbench_behaviors_text_test.csv", header, behaviours)
    header = ["content_policy_id", "content_policy_name", "q_id", "question"]
    questions = [[p, f"Policy {p}", q, f"Question {p}-{q}?"] for p in range(3) for q in range(2)]
    table(root / "do_anything_now/forbidden_question_set.csv", header, questions)
    header = ["platform", "source", "prompt", "jailbreak"]
    pretences = [["web", "site", f"Pretend {i}, please.", True] for i in range(3)]
    table(root / "do_anything_now/jailbreak_prompts_2023_05_07.csv", header, pretences)
    header = ["id", "prompt", "type", "label", "focus", "note"]
    kinds = ["homonyms", "contrast_homonyms"]
    table(root / "xstest/xstest_prompts.csv", header, [[i, f"How to {i}?", kinds[i % 2], "", "", ""] for i in range(5)])
    jsonl(root / "wildjailbreak/harmful.jsonl", [{"vanilla": f"v{i}", "adversarial": f"a{i}"} for i in range(5)])
    labels = [("harmful", "harmful"), ("harmful", "unharmful"), ("unharmful", "unharmful"), ("harmful", None), (None, None)]
    tested = [
        {"prompt": f"p{i}", "adversarial": bool(i % 2), "prompt_harm_label": p, "response_harm_label": r, "subcategory": "others"}
        for i, (p, r) in enumerate(labels)
    ]
    parquet(root / "wildguardtest/wildguard_test.parquet", tested)
    trained = [("harmful", "unharmful", "refusal"), ("harmful", "unharmful", "compliance"), ("harmful", "harmful", "compliance")]
    trained += [("unharmful", "unharmful", "compliance"), ("harmful", None, None)]
    guard = [
        {
            "prompt": f"p{i}",
            "response": f"r{i}" if harm else None,
            "prompt_harm_label": kind,
            "response_harm_label": harm,
            "response_refusal_label": refusal,
        }
        for i, (kind, harm, refusal) in enumerate(trained)
    ]
    parquet(root / "wildguardmix/train/wildguard_train.parquet", guard)
    header = ["vanilla", "adversarial", "completion", "data_type"]
    jailbreaks = [["v0", "", "c0", "vanilla_harmful"], ["v1", "a1", "c1", "adversarial_benign"], ["None", "", "c2", "vanilla_benign"]]
    table(root / "wildjailbreak/train/train.tsv", header, jailbreaks, delimiter="\t")


def write_knowledge(root: Path) -> None:
    for subject in ("anatomy", "world_religions"):
        lines = [[f'Which, "{i}"?', "a", "b", "c", "d", "ABCDA"[i]] for i in range(5)]
        table(root / f"mmlu/test/{subject}_test.csv", None, lines)
    table(root / "mmlu/dev/anatomy_dev.csv", None, [[f"Example {i}?", " a", "b ", "c", "d", "DCBAD"[i]] for i in range(5)])
    stem = [{"question": f"q{i}", "type": "college_physics", "choices": ["1", "2", "3", "4"], "answer": i % 4} for i in range(5)]
    jsonl(root / "mmlu_stem/test.jsonl", stem)
    questions = ["Who?", '"Who wrote ""It""?"', '"It" and "Us"', "\u2028Where?", "When?"]
    trivia = [{"id": f"test_{i}", "question": q, "golden_answers": ["Ann", "Anne"]} for i, q in enumerate(questions)]
    jsonl(root / "triviaqa/triviaqa_test_1k_subsample.jsonl", trivia)
    answers = [{"text": "France", "answer_start": 3}, {"text": "France", "answer_start": 3}]
    asked = [{"question": f"Where {i}?", "id": f"q{i}", "answers": answers * (i % 2), "is_impossible": not i % 2} for i in range(5)]
    paragraph = {"context": "In France.", "qas": asked}
    document(root / "squad_v2/dev-v2.0.json", {"version": "v2.0", "data": [{"title": "Old_France", "paragraphs": [paragraph]}]})
    turns = [{"input_text": "Who?", "turn_id": 1}, {"input_text": "Where?", "turn_id": 2}]
    said = [{"input_text": "Ann", "turn_id": 1}, {"input_text": "in Rome", "turn_id": 2}]
    more = {"0": [{"input_text": "Ann", "turn_id": 1}, {"input_text": "Rome", "turn_id": 2}]}
    dialogues = [
        {"id": f"d{i}", "story": "Ann is in Rome.", "questions": turns, "answers": said, "additional_answers": more} for i in range(5)
    ]
    document(root / "coqa/coqa-dev-v1.0.json", {"version": "1.0", "data": dialogues})
    articles = {f"{i}": {"QUESTION": f"Does {i}?", "CONTEXTS": ["One.", "Two."], "LONG_ANSWER": "It does."} for i in range(7)}
    document(root / "pubmedqa/ori_pqal.json", articles)
    document(root / "pubmedqa/test_ground_truth.json", {"6": "yes", "5": "no", "4": "maybe", "3": "yes", "2": "yes"})
    for name, kind, word in (("src.fr", "srcset", "phrase"), ("ref.en", "refset", "sentence")):
        segments = "\n".join(f'<seg id="{i}">{word} {i} & suite</seg>' for i in range(1, 6))
        text = f'<{kind} setid="newstest2014">\n<doc docid="paper" origlang="fr">\n{segments}\n</doc>\n</{kind}>\n'
        path = root / f"wmt14_fr-en/newstest2014-fren-{name}.sgm"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    jsonl(root / "lambada/lambada_test.jsonl", [{"text": f"She took the umbrella number {i}\n\nand left"} for i in range(5)])


def write(root: Path) -> Path:
    """Write every dataset's files below `root`; returns it."""
    for write_domain in (write_instruction, write_mathematics, write_multilingual, write_coding, write_safety, write_knowledge):
        write_domain(root)
    return root
