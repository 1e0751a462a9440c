"""A judge that is asked about equal texts once."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergebench.errors import MergebenchError
from mergebench.evaluation.safety import Remembering, Request
from tests.unit.evaluation.safety.judged import CountingJudge, verdict

TEXTS = st.text(max_size=2)


@settings(max_examples=40)
@given(st.lists(st.lists(st.tuples(TEXTS, TEXTS), max_size=6), max_size=4))
def test_every_request_gets_its_own_label_and_is_asked_once_in_the_order_of_prompts(tmp_path_factory, calls):
    judge = CountingJudge()
    remembering = Remembering(judge, tmp_path_factory.mktemp("labels"))
    for pairs in calls:
        requests = [Request(prompt, response) for prompt, response in pairs]
        before = len(judge.asked)
        assert [label.raw for label in remembering.judge(requests)] == [verdict(request).raw for request in requests]
        prompts = [request.prompt for request in judge.asked[before:]]
        assert prompts == sorted(prompts)
    assert len(judge.asked) == len(set(judge.asked))


def test_another_process_asks_nothing_again(tmp_path):
    """Candidates of a search give many equal answers; so do jobs of one base."""
    first, second = CountingJudge(), CountingJudge()
    requests = [Request("p", "no"), Request("p", "yes"), Request("p", "")]
    labels = Remembering(first, tmp_path).judge(requests)
    assert Remembering(second, tmp_path).judge(requests[::-1]) == labels[::-1]
    assert (len(first.asked), second.asked) == (3, [])
    assert [label.empty for label in labels] == [False, False, True]


def test_two_that_are_open_at_once_agree_and_share(tmp_path):
    one, other = CountingJudge(), CountingJudge()
    first, second = Remembering(one, tmp_path), Remembering(other, tmp_path)
    assert first.judge([Request("p", "no")]) == second.judge([Request("p", "no")])
    assert other.asked == []


def test_other_code_that_reads_labels_makes_them_anew(tmp_path):
    old, new = CountingJudge(), CountingJudge()
    Remembering(old, tmp_path).judge([Request("p", "no")])
    new.code = ("mergebench.evaluation.safety.wildguard",)
    Remembering(new, tmp_path).judge([Request("p", "no")])
    assert len(new.asked) == 1


def test_a_check_that_raises_stops_and_keeps_what_there_is(tmp_path):
    def check(labels, total):
        seen.append((len(labels), total))
        if labels:
            raise MergebenchError("enough")

    seen: list[tuple[int, int]] = []
    judge = CountingJudge()
    with pytest.raises(MergebenchError, match="enough"):
        Remembering(judge, tmp_path, check=check).judge([Request("p", str(number)) for number in range(200)])
    assert seen == [(0, 200), (128, 200)]
    Remembering(judge, tmp_path).judge([Request("p", str(number)) for number in range(200)])
    assert len(judge.asked) == 200


def test_progress_counts_what_is_known_and_reaches_the_end(tmp_path):
    reports = []
    Remembering(CountingJudge(), tmp_path).judge([Request("p", "a")])
    Remembering(CountingJudge(), tmp_path, progress=lambda *report: reports.append(report)).judge([Request("p", "a"), Request("p", "b")])
    assert reports == [(1, 2, "distinct answers judged"), (2, 2, "distinct answers judged")]
