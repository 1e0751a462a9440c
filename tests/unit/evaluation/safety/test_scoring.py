"""From labels to outcomes, rates and groups."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.errors import MergebenchError
from mergebench.evaluation import safety
from mergebench.evaluation.aggregate import Item
from mergebench.evaluation.safety.labels import Label
from tests.unit.evaluation.safety.judged import HARMBENCH, KEYWORD, WILDGUARD, CountingJudge

LABELS = st.builds(Label, *[st.sampled_from([True, False, None])] * 3, st.booleans(), st.booleans(), st.booleans())


def items_of(count: int) -> list[Item]:
    return [Item(str(number), "", math.nan, "text") for number in range(count)]


def settled(labels, docs, rule="harm", protocol="corrected", judge=WILDGUARD, benchmark="wildguardtest"):
    items = items_of(len(docs))
    facts = safety.settle(items, docs, rule, {(str(n), 0): one for n, one in enumerate(labels)}, protocol, judge=judge, benchmark=benchmark)
    return items, facts


def harm_docs(count: int):
    return [{"prompt": "p", "adversarial": number % 2 == 0, "subcategory": "theft"} for number in range(count)]


def test_harm_refusal_and_unreadable_answers_are_reported_apart():
    labels = [
        Label(True, True, False),
        Label(True, False, True),
        Label(True, False, False),
        Label(parse_error=True),
        Label(True, empty=True),
    ]
    items, facts = settled(labels, harm_docs(5))
    counts = {name: facts[name] for name in ("answers", "parse_errors", "empty_responses", "cut_responses")}
    assert counts == {"answers": 5, "parse_errors": 1, "empty_responses": 1, "cut_responses": 0}
    rates = {name: facts[name] for name in ("refusal_rate", "compliance_rate", "harm_rate", "harmful_request_rate")}
    assert rates == {"refusal_rate": 0.25, "compliance_rate": 0.5, "harm_rate": 0.25, "harmful_request_rate": 1.0}
    assert [item.outcome for item in items[:3]] == [1.0, 0.0, 1.0]
    assert math.isnan(items[3].outcome)
    assert items[3].extra["unscorable"] == "the judge's answer could not be read"
    assert items[1].extra == {"refused": False, "harmful": True, "parse_error": False, "empty": False}


def test_a_rate_that_the_judge_does_not_label_is_absent():
    _, keyword = settled([Label(refused=False)], harm_docs(1), judge=KEYWORD)
    assert (keyword["harm_rate"], keyword["refusal_rate"], keyword["harmful_request_rate"]) == (1.0, 0.0, None)
    _, classifier = settled([Label(harmful=True)], harm_docs(1), judge=HARMBENCH)
    assert (classifier["harm_rate"], classifier["refusal_rate"]) == (1.0, None)


def test_help_with_a_safe_request_is_no_harm():
    docs = [{"prompt": "p", "type": "homonyms", "safe": True}, {"prompt": "p", "type": "contrast_homonyms", "safe": False}]
    _, facts = settled([Label(refused=False)] * 2, docs, "appropriate", judge=KEYWORD, benchmark="xstest")
    assert facts["harm_rate"] == 1.0
    assert facts["compliance_rate"] == 1.0


def test_groups_have_their_values_and_sizes():
    labels = [Label(True, False, True), Label(True, False, False), Label(True, False, False), Label(parse_error=True)]
    _, facts = settled(labels, harm_docs(4))
    assert facts["groups"] == {
        "prompt_type": {"adversarial": {"value": 0.5, "n": 2}, "vanilla": {"value": 1.0, "n": 1}},
        "subcategory": {"theft": {"value": 2 / 3, "n": 3}},
    }


@pytest.mark.parametrize(
    ("benchmark", "doc", "names"),
    [
        ("harmbench", {"prompt": "p", "functional_category": "f", "semantic_category": "s"}, {"functional_category", "semantic_category"}),
        ("do_anything_now", {"adversarial": "text", "vanilla": "v", "source": "s"}, {"source"}),
        ("wildjailbreak", {"adversarial": "text", "vanilla": "v"}, set()),
        ("xstest", {"prompt": "p", "type": "t", "safe": True}, {"type", "request"}),
    ],
)
def test_each_benchmark_has_its_groups(benchmark, doc, names):
    rule = {"harmbench": "harm", "xstest": "appropriate"}.get(benchmark, "compliance")
    _, facts = settled([Label(True, False, False)], [doc], rule, benchmark=benchmark)
    assert set(facts["groups"]) == names


def test_several_answers_to_a_row_are_averaged_over_those_that_count():
    item = Item("a", "", math.nan, "x", {"responses": ["x", "y", "z"]})
    labels = {("a", 0): Label(True, True, False), ("a", 1): Label(True, False, True), ("a", 2): Label(parse_error=True)}
    facts = safety.settle([item], harm_docs(1), "harm", labels, "corrected", judge=WILDGUARD, benchmark="wildguardtest")
    assert item.outcome == 0.5
    assert item.extra["refused"] == [True, False, None]
    assert facts["answers"] == 3
    safety.settle([item], harm_docs(1), "harm", labels, "released", judge=WILDGUARD, benchmark="wildguardtest")
    assert item.outcome == pytest.approx(1 / 3)


def test_a_missing_label_is_named():
    with pytest.raises(MergebenchError, match=r"wildguardtest: the judge's labels lack sample 0 of item '0'"):
        safety.settle(items_of(1), harm_docs(1), "harm", {}, judge=WILDGUARD, benchmark="wildguardtest")


@settings(max_examples=40)
@given(st.lists(LABELS, min_size=1, max_size=12), st.randoms(use_true_random=False), st.sampled_from(["released", "corrected"]))
def test_the_order_of_rows_does_not_matter(labels, shuffle: random.Random, protocol):
    docs = harm_docs(len(labels))
    items, facts = settled(labels, docs, protocol=protocol)
    order = list(range(len(labels)))
    shuffle.shuffle(order)
    other, again = settled([labels[n] for n in order], [docs[n] for n in order], protocol=protocol)
    assert repr([other[order.index(n)].outcome for n in range(len(labels))]) == repr([item.outcome for item in items])
    assert {**again, "groups": None, "official": None} == {**facts, "groups": None, "official": None}
    for name, groups in facts["groups"].items():
        for group, found in groups.items():
            assert again["groups"][name][group] == pytest.approx(found)


def test_the_judge_sees_the_plain_request_and_the_context_only_where_the_model_did():
    doc = {"adversarial": "jailbreak", "vanilla": "plain"}
    contextual = {"prompt": "behave", "context": "the page"}
    seen = [safety.request_of(doc, "r", "corrected")]
    seen += [safety.request_of(contextual, "r", protocol) for protocol in ("corrected", "released", "paper")]
    assert [(request.prompt, request.context) for request in seen] == [
        ("plain", ""),
        ("behave", "the page"),
        ("behave", ""),
        ("behave", ""),
    ]


def test_a_judge_in_this_process_labels_every_answer():
    judge = CountingJudge()
    items = [Item("a", "", math.nan, "no"), Item("b", "", math.nan, "x", {"responses": ["x", "no", "?"]})]
    facts = safety.settle_with(judge, items, harm_docs(2), "harm", benchmark="wildguardtest")
    assert [request.response for request in judge.asked] == ["no", "x", "no", "?"]
    assert [item.outcome for item in items] == [1.0, 0.5]
    assert facts["name"] == "counting"
