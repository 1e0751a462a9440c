"""safety_eval.json: our blocks have the published layout, and the counts behind published rates are found again."""

import json
import math
import os
import random
from pathlib import Path

import pandas
import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation import safety
from mergebench.evaluation.aggregate import Item
from mergebench.evaluation.official import safety as official
from mergebench.evaluation.official.scores import OfficialScore
from mergebench.evaluation.safety.labels import Label
from mergebench.evaluation.scoring import Record
from tests.unit.evaluation.safety.judged import KEYWORD, WILDGUARD

HARMFUL, HARMLESS, REFUSAL = Label(True, False, True), Label(True, False, False), Label(True, True, False)
UNREADABLE = Label(parse_error=True)
RULES = {"wildguardtest": "harm", "harmbench": "harm", "xstest": "appropriate"}


def block(benchmark, pairs, judge=WILDGUARD, protocol="corrected"):
    """The official block of (document, label) pairs."""
    docs = [doc for doc, _ in pairs]
    items = [Item(str(number), "", math.nan, "text") for number in range(len(docs))]
    labels = {(str(number), 0): label for number, (_, label) in enumerate(pairs)}
    rule = RULES.get(benchmark, "compliance")
    return safety.settle(items, docs, rule, labels, protocol, judge=judge, benchmark=benchmark)


def wildguard(adversarial, subcategory, label):
    return {"prompt": "p", "adversarial": adversarial, "subcategory": subcategory}, label


def behaviour(functional, semantic, label):
    return {"prompt": "p", "functional_category": functional, "semantic_category": semantic}, label


def xs(kind, label):
    return {"prompt": "p", "type": kind, "safe": "contrast" not in kind}, label


def test_wildguardtest():
    pairs = [
        wildguard(True, "b", HARMFUL),
        wildguard(False, "a", HARMLESS),
        wildguard(False, "a", UNREADABLE),
        wildguard(True, "b", REFUSAL),
    ]
    assert block("wildguardtest", pairs)["official"] == {
        "micro harm (lower)": 0.5,
        "prompt_type harm (lower)": {"b": 0.5, "a": 0.5},
        "adversarial harm (lower)": 0.5,
        "vanilla harm (lower)": 0.5,
    }


def test_harmbench_has_three_functional_categories_whether_scored_or_not():
    pairs = [behaviour("copyright", "c", HARMFUL), behaviour("standard", "s", UNREADABLE), behaviour("standard", "c", REFUSAL)]
    assert block("harmbench", pairs)["official"] == {
        "micro ASR (lower)": 1 / 3,
        "FunctionalCategory ASR (lower)": {"standard": 0.0, "contextual": -1.0, "copyright": 1.0},
        "SemanticCategory ASR (lower)": {"c": 0.5, "s": 0.0},
    }


@pytest.mark.parametrize(("benchmark", "source"), [("do_anything_now", {"source": "reddit"}), ("wildjailbreak", {})])
def test_jailbreaks_succeed_by_compliance(benchmark, source):
    doc = {"adversarial": "a", "vanilla": "v", **source}
    pairs = [(doc, HARMLESS), (doc, REFUSAL), (doc, UNREADABLE), (doc, Label(True))]
    parts = {"reddit ASR": 0.25} if source else {}
    assert block(benchmark, pairs)["official"] == {"macro ASR": 0.25, **parts}


def test_xstest():
    pairs = [
        xs("homonyms", HARMLESS), xs("homonyms", REFUSAL), xs("definitions", Label(True)), xs("definitions", HARMLESS),
        xs("contrast_homonyms", REFUSAL), xs("contrast_homonyms", HARMFUL),
    ]  # fmt: skip
    assert block("xstest", pairs)["official"] == {
        "inverted_rta_all_safe": 0.75,
        "inverted_rta_all_contrast": 0.5,
        "inverted_rta_homonyms": 0.5,
        "inverted_rta_definitions": 1.0,
        "inverted_rta_contrast_homonyms": 0.5,
        "refusal_prf": {"precision": 0.5, "recall": 0.5, "f1": 0.5},
        "overall_accuracy": 0.5,
    }


def test_xstest_without_any_refusal_has_no_precision():
    report = block("xstest", [xs("homonyms", HARMLESS), xs("contrast_homonyms", HARMFUL)])["official"]
    assert report["refusal_prf"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0}


def scored(benchmark, pairs, **judge):
    return Record({"benchmark": benchmark, "judge": block(benchmark, pairs, **judge)}, pandas.DataFrame())


RECORDS = [
    scored("wildjailbreak", [({"adversarial": "a", "vanilla": "v"}, HARMLESS)]),
    scored("harmbench", [behaviour("standard", "illegal", HARMFUL), behaviour("standard", "illegal", REFUSAL)], judge=KEYWORD),
    scored("xstest", [xs("homonyms", HARMLESS)]),
]


def test_a_file_says_who_judged_beside_the_official_keys():
    document = official.write([*RECORDS, Record({"benchmark": "mmlu", "judge": None}, pandas.DataFrame())])
    assert list(document) == ["harmbench", "xstest", "wildjailbreak:harmful", "config"]
    assert document["config"]["harmbench"] == {"judge": "keyword", "fallback": True, "protocol": "corrected", "n": 2, "parse_errors": 0}


def test_a_model_without_safety_scores_has_no_file():
    assert official.write([Record({"benchmark": "mmlu", "judge": None}, pandas.DataFrame())]) == {}


def test_what_is_written_is_read_again(tmp_path):
    (tmp_path / "safety_eval.json").write_text(json.dumps(official.write(RECORDS)))
    scores = official.read(tmp_path / "safety_eval.json")
    assert scores[0] == OfficialScore("harmbench", "micro ASR (lower)", 0.5, 2, {})
    assert [(score.benchmark, score.metric, score.n) for score in scores if score.n is not None] == [
        ("harmbench", "micro ASR (lower)", 2),
        ("xstest", "overall_accuracy", 1),
        ("wildjailbreak:harmful", "macro ASR", 1),
    ]
    parts = {score.metric: score.parts for score in scores if score.benchmark == "harmbench"}
    assert parts["FunctionalCategory ASR (lower)"] == {"standard": 0.5, "contextual": -1.0, "copyright": -1.0}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"harmbench": 1}, "harmbench is a int"),
        ({"harmbench": {}}, "harmbench has none of safety-eval's metrics; it has nothing"),
        ({"harmbench": {"micro ASR (lower)": "0.5"}}, r"harmbench, micro ASR \(lower\) is a str"),
        ({"xstest": {"overall_accuracy": 1.0, "refusal_prf": {"f1": None}}}, "xstest, refusal_prf, f1 is a NoneType"),
    ],
)
def test_another_layout_is_named(tmp_path, document, message):
    (tmp_path / "safety_eval.json").write_text(json.dumps(document))
    with pytest.raises(MergebenchError, match=message):
        official.read(tmp_path / "safety_eval.json")


def drawn(seed):
    """A model that is harmful at random, on rows divided as those of the real benchmarks are."""
    draw = random.Random(seed)
    label = lambda: draw.choice([HARMFUL, REFUSAL])  # noqa: E731
    sizes = {"a": 81, "b": 98, "c": 48, "d": 123, "e": 399}
    kinds = [("homonyms", 25), ("definitions", 25), ("contrast_homonyms", 20)]
    return {
        "wildguardtest": block("wildguardtest", [wildguard(n % 9 < 4, name, label()) for name, size in sizes.items() for n in range(size)])[
            "official"
        ],
        "xstest": block("xstest", [xs(kind, label()) for kind, size in kinds for _ in range(size)])["official"],
    }


@pytest.mark.parametrize("seed", range(5))
def test_the_counts_behind_rates_are_found_again(seed):
    assert official.item_counts(drawn(seed), drawn(seed + 100)) == {"wildguardtest": 749, "xstest": 70}


def test_rates_of_no_common_count_are_refused():
    with pytest.raises(MergebenchError, match="no number of items up to 5000"):
        official.item_counts({"harmbench": {"micro ASR (lower)": 1 / 4999}}, {"harmbench": {"micro ASR (lower)": 1 / 3}})


def published() -> list[Path]:
    """The files that MergeBench's authors published, where somebody has put them."""
    named, real = os.environ.get("MERGEBENCH_PUBLISHED"), os.environ.get("MERGEBENCH_REAL_DATA")
    folder = Path(named) if named else Path(real).parent / "reference/published" if real else None
    return sorted(folder.glob("*.safety_eval.json")) if folder else []


@pytest.mark.skipif(not published(), reason="MERGEBENCH_PUBLISHED names no folder with the authors' result files")
class TestPublished:
    def test_the_evaluated_items_follow_from_the_published_rates(self):
        reports = [json.loads(path.read_text()) for path in published()]
        assert len(reports) == 2
        assert official.item_counts(*reports) == {"wildguardtest": 749, "harmbench": 320, "xstest": 450, "do_anything_now": 300}

    @pytest.mark.parametrize("path", published(), ids=lambda path: path.name)
    def test_every_number_is_read(self, path):
        def numbers(value):
            return sum(map(numbers, value.values())) if isinstance(value, dict) else 1

        scores = official.read(path)
        headlines = [
            score for score in scores if score.metric in ("micro harm (lower)", "micro ASR (lower)", "overall_accuracy", "macro ASR")
        ]
        assert [score.benchmark for score in headlines[:4]] == ["wildguardtest", "harmbench", "xstest", "do_anything_now"]
        found = sum(len(score.parts) for score in scores) + len({score.benchmark for score in scores})
        assert found == numbers(json.loads(path.read_text()))

    @pytest.mark.parametrize("path", published(), ids=lambda path: path.name)
    def test_our_blocks_have_the_published_keys_in_their_order(self, path):
        """Rows made up to have the published groups give the published keys."""
        report = json.loads(path.read_text())
        made = {
            "wildguardtest": [
                wildguard(n % 2 == 0, name, REFUSAL) for n, name in enumerate(report["wildguardtest"]["prompt_type harm (lower)"])
            ],
            "harmbench": [
                behaviour(list(report["harmbench"]["FunctionalCategory ASR (lower)"])[n % 3], name, REFUSAL)
                for n, name in enumerate(report["harmbench"]["SemanticCategory ASR (lower)"])
            ],
            "xstest": [
                xs(key.removeprefix("inverted_rta_"), REFUSAL)
                for key in report["xstest"]
                if key.startswith("inverted_rta_") and "_all_" not in key
            ],
            "do_anything_now": [
                ({"adversarial": "a", "vanilla": "v", "source": key.removesuffix(" ASR")}, REFUSAL)
                for key in report["do_anything_now"]
                if key != "macro ASR"
            ],
        }
        ours = {name: block(name, pairs)["official"] for name, pairs in made.items()}
        assert json.dumps(_keys(ours)) == json.dumps(_keys(report))


def _keys(value):
    return {key: _keys(inner) for key, inner in value.items()} if isinstance(value, dict) else None
