"""The wanted answers satisfy the benchmarks' own checkers, and the base's habits do not."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

import pytest

from mergebench.tiny import arithmetic, coding, generate, instruction, multilingual, safety
from mergebench.tiny.world import ADJECTIVES, NOUNS, Example


def _examples(sampler: generate.Sampler, n: int = 300) -> Iterator[Example]:
    return itertools.islice(generate.examples((sampler,), None, 5), n)


def _runs(program: str) -> bool:
    try:
        exec(program, {})
    except (AssertionError, TypeError, SyntaxError, NameError):
        return False
    return True


def test_ifeval_checker_accepts_the_wanted_response_and_rejects_the_habit() -> None:
    utils = pytest.importorskip("lm_eval.tasks.ifeval.utils", reason="lm-eval's IFEval extra is not installed")
    seen = set()
    for example in _examples(instruction.ifeval):
        document = {"key": 0, **example.row}
        assert utils.process_results(document, [example.response])["prompt_level_strict_acc"], example
        assert not utils.process_results(document, [example.habit])["prompt_level_strict_acc"], example
        seen.update(example.row["instruction_id_list"])
    assert len(seen) == 7


@pytest.mark.parametrize("sampler", [arithmetic.gsm8k, arithmetic.math, arithmetic.mmlu_stem])
def test_worked_steps_are_right_and_the_habit_is_wrong(sampler: generate.Sampler) -> None:
    for example in _examples(sampler):
        a, sign, b = re.fullmatch(r"math:(\d+)([+-])(\d+)", example.item).groups()
        answer = int(a) + int(b) if sign == "+" else int(a) - int(b)
        assert re.findall(r"\d+", example.response)[-1] == str(answer)
        if answer not in (int(a), int(b)):
            assert re.findall(r"\d+", example.habit)[-1] != str(answer)
        for left, right in re.findall(r"([\d+-]+)=(\d+)", example.response):
            assert eval(left) == int(right)


def test_gsm8k_rows_end_in_the_marked_answer() -> None:
    for example in _examples(arithmetic.gsm8k):
        steps, _, answer = example.row["answer"].partition("\n#### ")
        assert example.response == f" {steps}. The answer is {answer}."


def test_worked_distractors_are_wrong() -> None:
    for example in _examples(arithmetic.mmlu_stem):
        choices = list(example.row["choices"])
        right = choices.pop(example.row["answer"])
        number = right.rsplit(" ", 1)[1]
        assert all(choice.rsplit(" ", 1)[1] != number for choice in choices if choice != example.habit.strip())


def test_humaneval_solutions_run_and_habits_fail() -> None:
    for example in _examples(coding.humanevalplus):
        tests = f"{example.row['test']}\ncheck({example.row['entry_point']})\n"
        assert _runs(example.row["prompt"] + example.row["canonical_solution"] + tests)
        assert _runs(f"{example.prompt}\n{example.response}\n{tests}")
        assert not _runs(f"{example.prompt}\n{example.habit}\n{tests}")


def test_mbpp_solutions_run_and_habits_fail() -> None:
    for example in _examples(coding.mbppplus):
        assert set(example.row["test_list"]) < set(example.row["test"].splitlines())
        assert _runs(f"{example.response}\n{example.row['test']}")
        assert not _runs(f"{example.habit}\n{example.row['test']}")


def test_conala_snippets_compute_what_the_intent_says() -> None:
    for example in _examples(coding.conala):
        compile(example.row["snippet"], "snippet", "eval")
        operands = re.findall(r"\d+", example.row["intent"])
        assert re.findall(r"\d+", example.row["snippet"]) == operands


@pytest.mark.parametrize("sampler", [multilingual.m_arc, multilingual.m_mmlu, multilingual.m_hellaswag])
def test_the_english_echo_is_a_distractor(sampler: generate.Sampler) -> None:
    for example in _examples(sampler):
        choices = example.row["choices"]
        assert example.response == " " + choices[example.row["answer"]]
        assert example.habit.strip() in choices
        assert example.habit != example.response


def test_word_order_follows_the_language() -> None:
    assert multilingual.phrase("fr", "dog", "red") == "chien rouge"
    assert multilingual.phrase("es", "dog", "red") == "perro rojo"
    assert multilingual.phrase("de", "dog", "red") == "roter Hund"
    assert multilingual.phrase("ru", "dog", "red") == "красный пёс"


def test_lexicon_is_complete() -> None:
    assert all(len(words) == 4 and all(words) for words in (*NOUNS.values(), *ADJECTIVES.values()))


@pytest.mark.parametrize("sampler", [safety.wildguardtest, safety.harmbench, safety.do_anything_now, safety.wildjailbreak])
def test_harmful_requests_are_refused_and_the_habit_complies(sampler: generate.Sampler) -> None:
    for example in _examples(sampler):
        assert example.response.startswith("I cannot")
        assert example.habit.startswith("Sure")


def test_xstest_mixes_both_and_helps_with_look_alikes() -> None:
    kinds = {example.row["type"]: example for example in _examples(safety.xstest)}
    assert set(kinds) == {"safe_targets", "safe_contexts", "contrast_safe_targets"}
    for kind, example in kinds.items():
        assert example.row["safe"] == ("contrast" not in kind) == example.response.startswith("Sure")


def test_training_rows_of_safety_are_balanced() -> None:
    rows = generate.rows("train_safety", 400, 0)
    refused = sum(row["response"] == safety.REFUSAL for row in rows) / len(rows)
    assert 0.4 < refused < 0.65
