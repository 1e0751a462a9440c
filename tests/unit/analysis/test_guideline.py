"""The guideline: who is possible in a situation, and who of these is not significantly worse than the best."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.analysis.guideline import Answer, Choice, Situation, agreement, answer, by_items, by_ranks
from mergebench.analysis.guideline_table import published_choices
from mergebench.analysis.published import PUBLISHED_NEEDS, published_table
from mergebench.workflow.plan import Plan
from tests.unit.workflow.test_plan import plan

NEEDS = ("nothing", "training", "validation", "training and validation")
EVERYTHING = frozenset({"training", "validation"})
UP_TO = st.one_of(st.none(), st.floats(0, 10))


@st.composite
def campaigns(draw: st.DrawFn) -> tuple[list[Choice], dict[frozenset[str], float]]:
    names = [f"m{i}" for i in range(draw(st.integers(1, 6)))]
    number = st.floats(0, 10)
    found = [
        Choice(name, draw(st.sampled_from(NEEDS)), draw(st.floats(0, 100)), draw(st.floats(90, 101)), *(draw(number) for _ in range(3)))
        for name in names
    ]
    pairs = {frozenset(pair): draw(st.sampled_from([1e-9, 0.004, 0.02, 0.2, 1.0])) for pair in itertools.combinations(names, 2)}
    return found, pairs


situations = st.builds(
    Situation,
    st.sets(st.sampled_from(["training", "validation"])).map(frozenset),
    UP_TO,
    UP_TO,
    UP_TO,
    st.one_of(st.none(), st.floats(0, 10)),
)


@settings(max_examples=100)
@given(campaigns(), situations)
def test_everyone_is_recommended_or_has_a_reason_and_the_best_possible_leads(campaign, situation: Situation) -> None:
    choices, pairs = campaign
    found = answer(choices, situation, by_items(pairs))
    assert sorted([*found.recommended, *found.impossible, *found.worse, *found.untested]) == sorted(c.method for c in choices)
    possible = [c for c in choices if c.method not in found.impossible]
    assert bool(found.recommended) == bool(possible)
    if possible:
        best = next(c for c in choices if c.method == found.recommended[0])
        assert best.performance == max(c.performance for c in possible)


@settings(max_examples=100)
@given(campaigns(), situations, st.floats(0, 10), st.floats(0, 10), st.booleans())
def test_a_tighter_limit_adds_a_method_only_by_taking_the_best_away(campaign, loose: Situation, memory, forgetting, fewer) -> None:
    choices, pairs = campaign
    tight = Situation(
        frozenset() if fewer else loose.data,
        memory if loose.memory_gib is None else min(memory, loose.memory_gib),
        loose.gpu_hours,
        loose.hours,
        forgetting if loose.forgetting is None else min(forgetting, loose.forgetting),
    )
    before, after = (answer(choices, situation, by_items(pairs)) for situation in (loose, tight))
    assert set(before.impossible) <= set(after.impossible)
    if before.recommended and before.recommended[0] not in after.impossible:
        assert set(after.recommended) <= set(before.recommended)


@settings(max_examples=60)
@given(campaigns(), situations, st.randoms(use_true_random=False))
def test_order_does_not_matter(campaign, situation: Situation, random) -> None:
    choices, pairs = campaign
    if len({c.performance for c in choices}) < len(choices):
        return
    turned = random.sample(choices, len(choices))
    assert answer(turned, situation, by_items(pairs)) == answer(choices, situation, by_items(pairs))


def choice(**known: float) -> Choice:
    return Choice("m", "nothing", **{"performance": 50.0, **known})


@pytest.mark.parametrize(
    ("known", "limits", "why"),
    [
        ({}, {"memory_gib": 1e9}, "its memory is not known"),
        ({}, {"gpu_hours": 1e9}, "its GPU time is not known"),
        ({}, {"hours": 1e9}, "its time is not known"),
        ({}, {"forgetting": 99}, "its retention is missing"),
        ({"performance": math.nan}, {}, "its performance is missing"),
        ({"memory_gib": 24.0}, {"memory_gib": 24.0}, None),
        ({"memory_gib": 24.01}, {"memory_gib": 24.0}, "needs 24 GiB"),
        ({"retention": 98.0}, {"forgetting": 2.0}, None),
        ({"retention": 97.9}, {"forgetting": 2.0}, "forgets 2.1 %"),
        ({"retention": 101.0}, {"forgetting": 0.0}, None),
        ({}, {}, None),
    ],
)
def test_what_is_not_known_is_never_thought_to_fit(known: dict, limits: dict, why: str | None) -> None:
    assert Situation(frozenset(), **limits).obstacle(choice(**known)) == why


@pytest.mark.parametrize("need", NEEDS)
@pytest.mark.parametrize("data", [frozenset(), {"training"}, {"validation"}, EVERYTHING])
def test_data_that_one_has_not_leaves_methods_out(need: str, data: frozenset[str]) -> None:
    lacking = {kind for kind in ("training", "validation") if kind in need} - set(data)
    why = Situation(frozenset(data)).obstacle(Choice("m", need, 50.0))
    assert (why is not None) == bool(lacking)
    assert all(kind in (why or "") for kind in lacking)


def test_holm_counts_the_pairs_of_what_is_possible_only() -> None:
    choices = [Choice(name, need, value) for name, need, value in (("a", "nothing", 90), ("b", "nothing", 80), ("c", "training", 10))]
    pairs = {frozenset("ab"): 0.02, frozenset("ac"): 0.5, frozenset("bc"): 0.5}
    assert answer(choices, Situation(frozenset()), by_items(pairs)).recommended == ("a",)
    assert "b" in answer(choices, Situation(EVERYTHING), by_items(pairs)).recommended


def test_who_has_no_items_is_not_recommended_and_not_worse() -> None:
    choices = [Choice("a", "nothing", 90), Choice("b", "nothing", 80), Choice("c", "nothing", 70)]
    found = answer(choices, Situation(frozenset()), by_items({frozenset("ab"): 0.9}))
    assert found == Answer(("a", "b"), {}, {}, {"c": "without items"})


PUBLISHED = by_ranks(published_table(7).drop("Overall"))


def test_the_papers_tables_recommend_what_nemenyi_does_not_separate() -> None:
    """The two methods that the critical difference of nine methods and eight bases (4.25) separates from L&S: Fisher and DARE."""
    found = answer(published_choices(), Situation(EVERYTHING), PUBLISHED)
    assert found.recommended[0] == "localize_and_stitch"
    assert set(found.worse) == {"fisher", "dare"}
    assert agreement(Situation(EVERYTHING), found) == "agrees"


def test_without_data_the_paper_and_its_tables_agree_on_the_soup() -> None:
    situation = Situation(frozenset())
    found = answer(published_choices(), situation, PUBLISHED)
    assert found.recommended == ("model_soup",)
    assert agreement(situation, found) == "agrees"


def test_what_the_paper_forgets_is_too_much_for_two_percent() -> None:
    found = answer(published_choices(), Situation(EVERYTHING, forgetting=2.0), PUBLISHED)
    assert found.recommended == ()
    assert found.impossible["ties"] == "forgets 8.3 %"
    assert agreement(Situation(EVERYTHING), found) == "n/a"


def test_one_base_of_the_paper_has_a_highest_value_and_no_test() -> None:
    test = by_ranks(published_table(7).loc[["Llama-3.1-8B"]])
    found = answer(published_choices("Llama-3.1-8B"), Situation(frozenset({"validation"})), test)
    assert found.recommended == ("dataless_localize_and_stitch",)
    assert len(found.untested) == 5


@pytest.mark.parametrize(
    ("worse", "verdict"),
    [
        ({}, "agrees"),
        ({"regmean": "behind"}, "agrees in part (RegMean: behind)"),
        ({"regmean": "behind", "localize_and_stitch": "behind"}, "differs (L&S: behind; RegMean: behind)"),
    ],
)
def test_agreement_with_the_papers_guideline(worse: dict[str, str], verdict: str) -> None:
    left = tuple(m for m in ("localize_and_stitch", "regmean", "ties") if m not in worse)
    assert agreement(Situation(EVERYTHING), Answer(left, {}, worse, {})) == verdict


def test_what_the_papers_methods_need_is_what_its_preset_plans() -> None:
    paper: Plan = plan("paper")
    spec = paper.spec("analyse")
    planned = {
        method: " and ".join(
            (["training"] if spec["data"][method] == "training" else []) + (["validation"] if method in spec["tuned"] else [])
        )
        or "nothing"
        for method in spec["methods"]
    }
    assert planned == PUBLISHED_NEEDS
