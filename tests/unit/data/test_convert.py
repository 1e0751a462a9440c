"""What becomes of each dataset's records."""

import random
from collections.abc import Callable

import pytest

from mergebench import catalogue
from mergebench.data.convert import FILTERS, HUB, LOCAL, convert_training, knowledge, mathematics, multilingual, safety
from mergebench.data.convert.selection import Tally
from mergebench.data.records import Record, Row, same_text
from mergebench.data.schema import SCHEMAS, check_rows
from mergebench.errors import MergebenchError

Rows = Callable[[str], list[Row]]


def records(*values: Row) -> list[Record]:
    return [Record(value, f"record {number}") for number, value in enumerate(values, start=1)]


def trained_on(dataset: str, name: str | None = None, **parts: list[Row]) -> tuple[list[Row], dict[str, Tally]]:
    """Rows that a filter makes of the records of a published training set, and what became of the records."""
    entry = {"filter": name or next(iter(FILTERS[dataset]))}
    return convert_training(dataset, entry, {part: records(*values) for part, values in parts.items()})


def test_every_dataset_has_a_converter_for_its_sources() -> None:
    assert set(HUB) | set(FILTERS) == set(SCHEMAS)
    assert set(SCHEMAS) - set(LOCAL) == {"train_safety"}  # has no stand-in
    assert {name: set(filters) for name, filters in FILTERS.items()} == {
        name: set(entry["filters"]) for name, entry in catalogue.datasets().items() if "filters" in entry
    }
    assert {name for name, entry in catalogue.datasets().items() if "hub" not in entry} == {"pud_prose"}


def test_unused_arguments_of_instructions_are_dropped(rows: Rows) -> None:
    columnar = {"num_words": 3, "relation": None, "keywords": None}
    record = {"key": 1, "prompt": "p", "instruction_id_list": ["a", "b"], "kwargs": [columnar, None]}
    assert HUB["ifeval"]({"rows": records(record)}, 0)[0]["kwargs"] == [{"num_words": 3}, {}]
    assert rows("ifeval_like")[0]["kwargs"] == rows("ifeval")[0]["kwargs"]


@pytest.mark.parametrize("broken", ["{", '"text"', 3])
def test_broken_arguments_are_found(broken: object) -> None:
    record = {"key": 1, "prompt": "p", "instruction_id_list": ["a"], "kwargs": broken}
    with pytest.raises(MergebenchError, match="record 1: 'kwargs' is"):
        HUB["ifeval"]({"rows": records(record)}, 0)


def test_gsm8k_answers_need_their_final_number() -> None:
    with pytest.raises(MergebenchError, match="record 1: 'answer' does not end in '#### <number>'"):
        HUB["gsm8k"]({"rows": records({"question": "q", "answer": "72"})}, 0)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"so $\boxed{\frac{1}{2}}$ and $\boxed{x^{2}}$.", r"x^{2}"),
        (r"\fbox{3}", "3"),
        (r"is $\boxed 7$.", "7"),
        (r"cut off \boxed{1", None),
        ("none", None),
    ],
)
def test_the_last_boxed_expression_is_the_answer(text: str, answer: str | None) -> None:
    assert mathematics.last_boxed(text) == answer


def test_math_of_the_hub_takes_its_answer_from_the_solution() -> None:
    record = {"problem": "p", "solution": r"$\boxed{4}$", "level": "Level ?", "type": "Geometry"}
    (row,) = HUB["math"]({"geometry": records(record)}, 0)
    assert (row["id"], row["answer"], row["subject"], row["level"]) == ("geometry/0000", "4", "Geometry", "Level ?")
    with pytest.raises(MergebenchError, match=r"'solution' has no \\boxed"):
        HUB["math"]({"geometry": records({**record, "solution": "4"})}, 0)


def test_math_500_levels_read_like_those_of_math(rows: Rows) -> None:
    assert rows("math")[4]["level"] == "Level 5"


def test_training_on_gsm8k_uses_the_benchmarks_prompt_and_answer_style(rows: Rows) -> None:
    row = next(r for r in rows("train_math") if r["prompt"] == "Q: What is 7 times 1,000?\nA:")
    assert row["response"] == "7,000 in all.\nThe answer is 7,000."


def test_reinforcement_learning_and_supervised_training_share_no_question(rows: Rows) -> None:
    supervised, reinforced = ({r["prompt"] for r in rows(name)} for name in ("train_math", "train_math_grpo"))
    assert supervised
    assert reinforced
    assert not supervised & reinforced
    assert len(supervised | reinforced) == 40
    assert rows("train_math_grpo")[0]["answer"].isdigit()


def test_problems_whose_answer_cannot_be_checked_are_not_reinforced() -> None:
    rows, tallies = trained_on(
        "train_math_grpo", rows=[{"problem": "p", "solution": r"\boxed{2}"}, {"problem": "q", "solution": "a proof"}]
    )
    assert tallies["rows"].dropped == {"no boxed answer": 1}
    assert [(row["prompt"], row["answer"]) for row in rows] == [("Problem: p\nSolution:", "2")]


def test_choices_keep_their_number_and_their_answer(rows: Rows) -> None:
    arc = rows("m_arc")
    assert (arc[3]["choices"], arc[3]["answer"]) == (["un", "deux", "trois", "quatre"], 2)
    assert (arc[4]["question"], len(arc[4]["choices"]), arc[4]["answer"]) == ("Combien.  ?".replace("  ", " "), 3, 1)
    assert {row["language"] for row in arc} == {"fr", "es"}


@pytest.mark.parametrize("answer", ["F", "", "AB", None])
def test_a_letter_that_is_no_choice_is_found(answer: str | None) -> None:
    with pytest.raises(MergebenchError, match="'answer' is not one of A, B, C, D, E"):
        multilingual.letter_index(*records({"answer": answer}))


def test_hellaswag_reads_as_lm_eval_shows_it(rows: Rows) -> None:
    row = rows("m_hellaswag")[0]
    assert row["context"] == "Cuisine: Elle coupe. Puis elle"
    assert (row["choices"], row["answer"]) == (["a ", "b ", "c ", "d "], 2)


@pytest.mark.parametrize(
    ("known", "source"),
    [
        ({"ind": 24, "source_id": "wikihow~1"}, "wikihow~1"),
        ({"ind": 0}, "0"),
        ({"id": "hellaswag/validation/8"}, "hellaswag/validation/8"),
        ({"source_id": ""}, None),
        ({}, None),
    ],
)
def test_hellaswag_keeps_what_its_translations_share(known: dict, source: str | None) -> None:
    published = {"activity_label": "Cuisine", "ctx_a": "Elle coupe.", "ctx_b": "elle", "endings": list("abcd"), "label": "2"}
    parts = {language: records({**published, **known}) for language in ("fr", "de")}
    assert [row.get("source") for row in multilingual.m_hellaswag(parts, 0)] == [source] * 2


def test_marks_are_kept_where_nothing_else_is_there() -> None:
    assert multilingual.cleaned("[H+]") == "[H+]"


def test_prose_continues_with_its_own_second_half(rows: Rows) -> None:
    for row in rows("pud_prose"):
        assert len(set(row["choices"])) == 4
        sentence = f"{row['context']} {row['choices'][row['answer']]}".split()
        assert len({word.split("w")[0] for word in sentence}) == 1
        assert len(sentence) == 10


def test_prose_answers_are_in_every_place(rows: Rows) -> None:
    assert {row["answer"] for row in rows("pud_prose")} == {0, 1, 2, 3}


def test_scored_prose_and_training_translations_share_no_document(rows: Rows) -> None:
    scored = {row["id"].split("/")[1] for row in rows("pud_prose")}
    trained = {row["id"].split("/")[1] for row in rows("train_multilingual")}
    assert scored
    assert trained
    assert not scored & trained


def test_translations_pair_the_same_sentence(rows: Rows) -> None:
    for row in rows("train_multilingual"):
        language, sentence = row["id"].split("/")
        number = int(sentence[1:6])
        assert row["prompt"].startswith(f"Translate into {multilingual.LANGUAGES[language]}: en{number}w0 ")
        assert row["response"].startswith(f"{language}{number}w0 ")


def test_humaneval_programs_run_and_tell_right_from_wrong(rows: Rows) -> None:
    for row in rows("humanevalplus"):
        test = f"{row['test']}\ncheck({row['entry_point']})\n"
        assert test.count("check(up)") == 1
        exec(row["prompt"] + row["canonical_solution"] + test, {})
        with pytest.raises(AssertionError):
            exec(row["prompt"] + "    return x\n" + test, {})


def test_the_known_defect_of_humaneval_32_is_corrected() -> None:
    defect = "def check(candidate):\n    assert _poly(*candidate(*inp), inp) <= 0.0001\n"
    record = {"task_id": "HumanEval/32", "prompt": "p", "canonical_solution": "s", "entry_point": "find_zero", "test": defect}
    assert "assert abs(_poly(*inp, candidate(*inp))) <= 0.0001" in HUB["humanevalplus"]({"rows": records(record)}, 0)[0]["test"]


def test_the_tests_of_mbpp_that_assert_nothing_are_corrected() -> None:
    lines = "def assertion(out, exp, atol):\n    if isinstance(out, bool):\n        exact_match = out == exp\n    else:\n"
    defect = f"{lines}        exact_match = exp == (out is not None)\n\nassertion(found(), False, 0)\n"
    record = {"task_id": 737, "prompt": "p", "code": "c", "test_imports": [], "test_list": ["assert found()"], "test": defect}
    test = HUB["mbppplus"]({"rows": records(record)}, 0)[0]["test"]
    for value in (False, None):
        exec(test, {"found": lambda value=value: value})
    for value in (True, object()):
        with pytest.raises(AssertionError):
            exec(test, {"found": lambda value=value: value})


def test_mbpp_programs_bring_their_imports(rows: Rows) -> None:
    row = rows("mbppplus")[0]
    exec(f"{row['code']}\n{row['test']}", {})


def test_conala_prefers_the_rewritten_intent(rows: Rows) -> None:
    intents = [row["intent"] for row in rows("conala")]
    assert intents == ["sort `x`"] * 4 + ["How to sort?"]
    assert {row["question_id"] for row in rows("conala")} == {"7"}


def test_rows_without_an_answer_are_not_trained_on(rows: Rows) -> None:
    assert len(rows("train_coding")) == 5


def test_wildguardtest_scores_labelled_harmful_prompts_only(rows: Rows) -> None:
    assert [row["prompt"] for row in rows("wildguardtest")] == ["p0", "p1"]


def test_safety_rows_keep_the_groups_that_are_reported(rows: Rows) -> None:
    assert [(row["adversarial"], row["subcategory"]) for row in rows("wildguardtest")] == [(False, "others"), (True, "others")]
    behaviours = [(row["functional_category"], row["semantic_category"], row["context"]) for row in rows("harmbench")]
    assert behaviours[:3] == [("standard", "illegal", ""), ("contextual", "illegal", "text"), ("copyright", "illegal", "")]
    assert {row["source"] for row in rows("do_anything_now")} == {"site"}
    assert {row["type"] for row in rows("xstest")} == {"homonyms", "contrast_homonyms"}


def test_a_truth_value_saved_as_text_is_refused() -> None:
    published = {
        "prompt": "p",
        "adversarial": "False",
        "prompt_harm_label": "harmful",
        "response_harm_label": "harmful",
        "subcategory": "s",
    }
    with pytest.raises(MergebenchError, match="'adversarial' is a str, expected true or false"):
        safety.wildguardtest({"rows": records(published)}, 0)


def test_safety_training_keeps_refusals_and_harmless_help(rows: Rows) -> None:
    pairs = [(row["prompt"], row["response"]) for row in rows("train_safety")]
    assert pairs == [("p0", "r0"), ("p3", "r3"), ("v0", "c0"), ("a1", "c1"), ("None", "c2")]


def test_jailbreak_pairs_end_in_their_question_and_cover_the_policies(rows: Rows) -> None:
    pairs = rows("do_anything_now")
    assert len(pairs) == 6
    assert all(row["adversarial"].endswith(f"\n\n{row['vanilla']}") for row in pairs)
    assert {row["vanilla"][:10] for row in pairs[:3]} == {"Question 0", "Question 1", "Question 2"}


def test_the_published_jailbreak_pairs_are_preferred() -> None:
    pair = {"adversarial": "a", "vanilla": "v", "source": "s", "date": "today"}
    assert safety.do_anything_now({"pairs": records(pair), "questions": []}, 0) == [
        {"id": "000", "adversarial": "a", "vanilla": "v", "source": "s"}
    ]


def test_half_of_the_jailbreak_corpus_is_refused() -> None:
    with pytest.raises(MergebenchError, match="found only the questions"):
        safety.do_anything_now({"questions": []}, 0)


def test_contrasts_are_the_unsafe_prompts(rows: Rows) -> None:
    assert [row["safe"] for row in rows("xstest")] == [True, False, True, False, True]


def test_mmlu_tables_take_their_subject_from_the_file(rows: Rows) -> None:
    by_subject = {row["subject"] for row in rows("mmlu")}
    assert by_subject == {"anatomy", "world religions"}
    assert [row["answer"] for row in rows("mmlu")][:5] == [0, 1, 2, 3, 0]
    assert rows("mmlu")[0]["question"] == 'Which, "0"?'


def test_stem_leaves_other_subjects_out() -> None:
    table = [{"question": "q", "subject": s, "choices": list("abcd"), "answer": 1} for s in ("anatomy", "sociology")]
    assert [row["subject"] for row in HUB["mmlu_stem"]({"rows": records(*table)}, 0)] == ["anatomy"]
    assert len(knowledge.STEM_SUBJECTS) == 19


def test_leftover_csv_quotes_are_removed_from_questions(rows: Rows) -> None:
    questions = [row["question"] for row in rows("triviaqa")]
    assert questions == ["Who?", 'Who wrote "It"?', '"It" and "Us"', "\u2028Where?", "When?"]


def test_triviaqa_of_the_hub_accepts_the_value_and_its_aliases() -> None:
    record = {"question_id": "tc_1", "question": "q", "answer": {"value": "A", "aliases": ["B", "A"]}}
    assert HUB["triviaqa"]({"rows": records(record)}, 0)[0]["aliases"] == ["A", "B"]


def test_unanswerable_questions_have_no_answers(rows: Rows) -> None:
    squad = rows("squadv2")
    assert [row["answers"] for row in squad[:2]] == [[], ["France"]]
    assert squad[0]["title"] == "Old_France"


def test_squad_reads_the_same_from_a_table(rows: Rows) -> None:
    row = rows("squadv2")[1]
    record = {**row, "title": "Old_France", "answers": {"text": ["France", "France"], "answer_start": [3, 3]}}
    assert HUB["squadv2"]({"rows": records(record)}, 0) == [row]


def test_coqa_reads_the_same_from_a_table(rows: Rows) -> None:
    row = rows("coqa")[0]
    assert row["answers"] == [["Ann"], ["in Rome", "Rome"]]
    record = {
        "id": "d0",
        "story": row["story"],
        "questions": {"input_text": row["questions"], "turn_id": [1, 2]},
        "answers": {"input_text": ["Ann", "in Rome"]},
        "additional_answers": {"0": {"input_text": ["Ann", "Rome"]}, "1": {"input_text": ["", ""]}},
    }
    assert HUB["coqa"]({"rows": records(record)}, 0) == [row]


def test_pubmedqa_is_the_official_test_set(rows: Rows) -> None:
    assert [(row["id"], row["answer"]) for row in rows("pubmedqa")] == [
        ("6", "yes"), ("5", "no"), ("4", "maybe"), ("3", "yes"), ("2", "yes"),
    ]  # fmt: skip
    assert rows("pubmedqa")[0]["context"] == "One.\nTwo."


def test_translations_must_stand_side_by_side() -> None:
    source = records({"document": "d", "segment": "1", "text": "un"}, {"document": "d", "segment": "2", "text": "deux"})
    target = records({"document": "d", "segment": "1", "text": "one"}, {"document": "d", "segment": "3", "text": "three"})
    with pytest.raises(MergebenchError, match="record 2: this is not the translation of segment d/2"):
        LOCAL["wmt14"]({"source": source, "reference": target}, 0)
    with pytest.raises(MergebenchError, match="the reference has 1 segments, expected 2"):
        LOCAL["wmt14"]({"source": source, "reference": target[:1]}, 0)


def test_wmt14_of_the_hub_translates_into_english() -> None:
    rows = HUB["wmt14"]({"rows": records({"translation": {"fr": "un", "en": "one"}})}, 0)
    check_rows("wmt14", rows)
    assert (rows[0]["source"], rows[0]["target"]) == ("un", "one")


def test_aya_keeps_the_benchmarks_languages() -> None:
    table = [{"inputs": " q ", "targets": "a", "language_code": code} for code in ("fra", "eng", "rus")]
    rows, tallies = trained_on("train_multilingual", rows=table)
    assert [(row["id"], row["language"]) for row in rows] == [("000000", "fr"), ("000002", "ru")]
    assert str(tallies["rows"]) == "3 records, 2 kept (fr 1, ru 1); dropped 1 another language"


def test_tulu_takes_the_first_exchange() -> None:
    said = [("user", "u1"), ("assistant", "a1"), ("user", "u2"), ("assistant", "a2")]
    record = {"id": "x", "messages": [{"role": role, "content": content} for role, content in said]}
    assert trained_on("train_instruction", rows=[record])[0] == [{"id": "x", "prompt": "u1", "response": "a1"}]
    with pytest.raises(MergebenchError, match="'messages' lacks"):
        trained_on("train_instruction", rows=[{**record, "messages": record["messages"][:1]}])


@pytest.mark.parametrize("dataset", ["pud_prose", "do_anything_now"])
def test_what_is_drawn_depends_on_the_seed_alone(dataset: str, folder: object) -> None:
    from mergebench.data.sources import local

    entry = catalogue.datasets()[dataset]
    random.seed(1)
    first = local.load(dataset, entry, folder, seed=3).rows  # type: ignore[arg-type]
    random.seed(2)
    assert local.load(dataset, entry, folder, seed=3).rows == first  # type: ignore[arg-type]
    assert local.load(dataset, entry, folder, seed=4).rows != first  # type: ignore[arg-type]


def test_same_text_ignores_case_and_spacing() -> None:
    assert same_text(" One\n  TWO ") == same_text("one two")
