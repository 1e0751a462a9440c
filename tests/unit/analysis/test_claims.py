"""The paper's claims: on its own tables with known verdicts, and on results that turn them round."""

import dataclasses

import pandas as pd
import pytest

from mergebench.analysis.claims import CLAIMS, Results, judge, published_results

PUBLISHED = {
    "C1": (
        "refuted as stated",
        "25 of 36 pairs rise: gemma-2 9/9, gemma-2 instruction-tuned 8/9, llama-3 8/9, llama-3 instruction-tuned 0/9",
    ),
    "C2": ("supported", "76.9 and 80.7"),
    "C3": ("refuted", "6 of 18 cells (Gemma-2-9b 4, Llama-3.1-8B 2); row means 90.2 and 83.6"),
    "C4": ("refuted", "26 of 36 cells (Gemma-2-2b-it 4, Llama-3.2-3B-Instruct 9, Gemma-2-9b-it 8, Llama-3.1-8B-Instruct 5)"),
    "C5": ("supported", "35 of 36 (not RegMean on Gemma-2-9b-it)"),
    "C6": ("supported weakly", "mean ranks 2.62 and 2.94; L&S separated from Fisher, DARE; Dataless L&S separated from Fisher"),
    "C7": ("supported", "mean rank 1.25 on 2B/3B, 7.25 on 8B/9B"),
    "C8": ("supported", "mean ranks Task Arithmetic 4.69, Consensus TA 4.50, TIES 4.88"),
    "C9": ("supported", "mean rank 6.62 on 2B/3B, 7.25 on 8B/9B"),
    "C10": ("supported", "mean rank 7.44, last"),
    "C11": ("undecided", "needs own runs"),
    "C12": (
        "undecided",
        "TIES 91.7 (1st), Dataless L&S 89.8 (3rd, tied), L&S 87.8 (6th, tied); best other Model Soup 91.0 (2nd); "
        "Friedman not significant (F 1.82 against 2.11)",
    ),
    "C13": ("supported mostly", "on 6 of 8 bases"),
    "C14": ("supported", "87.1, 8th of 9"),
    "C15": ("undecided", "needs own runs"),
    "C16": ("undecided", "needs own runs"),
    "C17": ("supported", "row means gemma-2 96.9 to 74.7, llama-3 93.5 to 74.7; confounded with the learning rate"),
    "C18": ("supported", "correlation of the means 0.10"),
    "C19": (
        "undecided",
        "Pareto set of performance and retention: Dataless L&S, L&S, TIES; dominated there: Model Soup, Task Arithmetic, RegMean; "
        "needs own runs: run times",
    ),
}


@pytest.fixture
def published() -> Results:
    return published_results()


@pytest.mark.parametrize("claim", PUBLISHED)
def test_verdict_and_numbers_on_the_published_tables(claim: str, published: Results) -> None:
    verdict, numbers = PUBLISHED[claim]
    found = judge(published)[claim]
    assert (str(found), found.numbers[: len(numbers)]) == (verdict, numbers)


def test_every_claim_is_tested_once() -> None:
    assert [claim.id for claim in CLAIMS] == list(PUBLISHED)


def test_verdicts_do_not_depend_on_the_order_of_bases_or_methods(published: Results) -> None:
    turned = dataclasses.replace(
        published, performance=published.performance.iloc[::-1, ::-1], retention=published.retention.iloc[::-1, ::-1]
    )
    assert {name: str(found) for name, found in judge(turned).items()} == {name: str(found) for name, found in judge(published).items()}


def test_results_that_are_the_other_way_round_refute(published: Results) -> None:
    upside_down = judge(dataclasses.replace(published, performance=-published.performance, retention=-published.retention))
    refuted = {name for name, found in upside_down.items() if found.verdict == "refuted"}
    assert {"C1", "C2", "C3", "C4", "C5", "C6", "C7", "C9", "C10", "C13", "C14", "C17"} <= refuted


def test_without_any_score_everything_is_undecided() -> None:
    empty = pd.DataFrame(float("nan"), index=["llama-3.1-8b"], columns=["model_soup", "ties"])
    for found in judge(Results(empty, empty, {})).values():
        assert found.verdict == "undecided"
        assert "needs" in found.numbers


def test_one_missing_base_leaves_its_claims_undecided_and_the_others_alone(published: Results) -> None:
    without = published.performance.drop(["Gemma-2-9b", "Llama-3.1-8B"])
    found = judge(dataclasses.replace(published, performance=without))
    assert found["C3"].verdict == "undecided"
    assert "8B/9B pretrained" in found["C3"].numbers
    assert found["C2"].verdict == "supported"


def test_a_missing_cell_is_never_counted_as_low(published: Results) -> None:
    gap = published.performance.copy()
    gap.loc["Llama-3.1-8B", "ties"] = float("nan")
    found = judge(dataclasses.replace(published, performance=gap))["C3"]
    assert found.numbers.startswith("4 of 9 cells (Gemma-2-9b 4)")


def costs(validation: float) -> pd.DataFrame:
    index = pd.MultiIndex.from_product([["Gemma-2-2b"], ["model_soup", "fisher", "localize_and_stitch", "ties"]], names=["base", "method"])
    frame = pd.DataFrame({"algorithm_seconds": 1.0, "validation_seconds": 0.0, "peak_memory_mib": [10.0, 90.0, 80.0, 20.0]}, index=index)
    frame.loc[("Gemma-2-2b", "ties"), "validation_seconds"] = validation
    return frame


@pytest.mark.parametrize(("validation", "verdict"), [(9.0, "supported"), (0.5, "refuted")])
def test_validation_dominates_where_it_takes_more_than_half(published: Results, validation: float, verdict: str) -> None:
    assert judge(dataclasses.replace(published, costs=costs(validation)))["C15"].verdict == verdict


@pytest.mark.parametrize(("training", "verdict"), [(100.0, "supported"), (1000.0, "refuted"), (15.0, "undecided")])
def test_memory_is_compared_with_training_unless_the_soup_takes_as_much(published: Results, training: float, verdict: str) -> None:
    assert judge(dataclasses.replace(published, costs=costs(1.0), training_memory=training))["C16"].verdict == verdict


@pytest.mark.parametrize(("multitask", "verdict"), [(10.0, "supported"), (99.9, "refuted")])
def test_merged_models_against_the_multitask_model(published: Results, multitask: float, verdict: str) -> None:
    retention = pd.Series({base: multitask for base in published.retention.index if base.startswith("Llama")})
    assert judge(dataclasses.replace(published, multitask_retention=retention))["C11"].verdict == verdict
