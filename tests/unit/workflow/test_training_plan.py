"""Imported specialists, shared tokens, and bases and domains that the configuration adds, in the plan."""

import copy
import json
import re

import pytest
import yaml

from mergebench import catalogue, config
from mergebench.errors import MergebenchError
from mergebench.training.specialists import Source
from mergebench.workflow.estimates import UNKNOWN_ROWS, Estimates
from mergebench.workflow.plan import Plan, pairs
from tests.unit.workflow.test_plan import PAPER, ROOT, specs

RAW = yaml.safe_load((ROOT / "config.yaml").read_text())


def plan(preset: str = "paper", specialists=None, added=None, **changes) -> Plan:
    raw = {**copy.deepcopy(RAW), "preset": preset, **({"catalogue": added} if added else {})}
    if specialists is not None:
        raw["presets"][preset]["training"]["specialists"] = specialists
    raw["presets"][preset].update(changes)
    return Plan(config.parse(raw))


@pytest.fixture(autouse=True)
def shipped():
    """What a test adds to the catalogue goes."""
    yield
    catalogue.extend({})


def test_all_published_specialists_replace_the_training_of_the_papers():
    made = plan(specialists="hub")
    counts = made.job_counts()
    assert counts["import_specialist"] == 40
    assert "train_specialist" not in counts
    assert "train_grpo" not in counts
    assert counts["fetch_training_data"] == 5  # for calibration and the multitask model; nothing is trained with GRPO
    assert counts["tokenise"] == PAPER["tokenise"]  # for the multitask model
    kept = ("fetch_base", "fetch_data", "train_multitask", "vectors", "statistics", "tune", "merge", "evaluate_general_1", "analyse")
    assert all(counts[rule] == PAPER[rule] for rule in kept)


def test_imported_and_trained_specialists_mix():
    made = plan(specialists={"math": "hub", "gemma-2-2b/coding": "someone/coder@v2", "llama-3.1-8b/math": "train"})
    counts = made.job_counts()
    assert (counts["import_specialist"], counts["train_specialist"], counts["train_grpo"]) == (8, 32, 1)
    assert made.imports["gemma-2-2b", "specialist_coding"] == Source(hub="someone/coder", revision="v2")
    assert made.imports["llama-3.2-3b", "specialist_math"] == Source(hub="MergeBench/Llama-3.2-3B_math")
    assert ("llama-3.1-8b", "sft_math") in made.supervised
    assert sorted(made.models) == sorted(plan().models)


def test_a_list_is_matched_by_name():
    made = plan(specialists=["MergeBench/Llama-3.1-8B-Instruct_safety@v1", "/models/gemma-2-2b_math"])
    assert made.imports == {
        ("llama-3.1-8b-instruct", "specialist_safety"): Source(hub="MergeBench/Llama-3.1-8B-Instruct_safety", revision="v1"),
        ("gemma-2-2b", "specialist_math"): Source(path="/models/gemma-2-2b_math"),
    }


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("tain", "'tain' for gemma-2-2b/instruction is none of train, hub, owner/name"),
        ({"mth": "hub"}, "'mth' is not known; did you mean 'math'"),
        ({"default": "a/b"}, "a/b stands for gemma-2-2b/instruction and for gemma-2-2b/math; name one for each"),
        (["a/model"], "'a/model' is not called <base>_<domain>"),
    ],
)
def test_a_wrong_list_or_map_is_one_sentence(setting, said):
    with pytest.raises(MergebenchError, match=re.escape(f"presets.paper.training.specialists: {said}")):
        plan(specialists=setting)


def test_a_twin_has_no_published_specialists():
    with pytest.raises(MergebenchError, match="no specialists of tiny-llama-strong are published"):
        plan("tiny", specialists="hub")


def test_a_folder_that_is_not_there_is_refused_before_planning(tmp_path):
    made = plan("tiny", specialists={"tiny-llama-strong/math": str(tmp_path / "gone")})
    with pytest.raises(MergebenchError, match=r"gone, for tiny-llama-strong/specialist_math, is not a folder"):
        made.check_data()


def test_another_origin_makes_the_import_stale_and_nothing_else_of_the_plan():
    first, second = (plan(specialists={"gemma-2-2b/math": f"a/b@{r}"}) for r in ("v1", "v2"))
    wanted = {"base": "gemma-2-2b", "model": "specialist_math"}
    assert first.spec("import", **wanted) != second.spec("import", **wanted)
    assert specs(first) == specs(second)


def test_the_pattern_of_pairs_matches_these_pairs_only():
    pattern = re.compile(rf"models/(?P<base>{pairs([('a.b', 'm_x'), ('c', 'm_y')])})/(?P<model>m_x|m_y)/manifest.json")
    paths = [f"models/{base}/{model}/manifest.json" for base in ("a.b", "aXb", "c") for model in ("m_x", "m_y")]
    assert [path for path in paths if pattern.fullmatch(path)] == ["models/a.b/m_x/manifest.json", "models/c/m_y/manifest.json"]
    assert not re.search(pairs([]), "anything")


def test_bases_that_agree_on_tokenizer_template_and_length_share_tokens():
    made = plan("tiny")
    assert len({made.tokens(base).key for base in made.bases}) == 1
    assert made.job_counts()["tokenise"] == len(made.domains)
    paper = plan()
    assert len({paper.tokens(base).key for base in paper.bases}) == len(paper.bases)
    assert paper.training_tokens("gemma-2-2b", "multitask")[1] == "results/paper/tokens/gemma-2-2b-alpaca-4096/train_math/manifest.json"


def test_the_released_recipe_changes_settings_and_tokens():
    training = copy.deepcopy(RAW["presets"]["paper"]["training"]) | {"recipe": "released"}
    made = plan(training=training)
    settings = made.spec("train", base="llama-3.1-8b", model="specialist_coding")["settings"]
    assert (settings["learning_rate"], settings["batch_size"], settings["batch_unit"]) == (2e-5, 160, "packs")
    assert made.tokens("llama-3.1-8b").key == "llama-3.1-8b-alpaca-2048"


def test_removing_contaminated_rows_puts_the_list_before_the_training():
    made = plan(data={**RAW["presets"]["paper"]["data"], "decontaminate": "remove"})
    assert made.hits("train_math") == ["results/paper/decontamination/train_math/hits.jsonl"]
    assert plan().hits("train_math") == []
    without = plan(data={**RAW["presets"]["paper"]["data"], "decontaminate": "none"})
    assert "decontaminate" not in without.job_counts()


MINE = {"size": "small", "parameters": 1_000_000_000, "hub": "me/mine", "revision": "v1"}
MEDICINE = {"training": {"id": "me/medicine", "prompt": "question"}, "in_domain": ["pubmedqa"], "surrogates": ["squadv2"]}


def with_medicine(**entry) -> Plan:
    paper = RAW["presets"]["paper"]
    evaluation = copy.deepcopy(paper["evaluation"])
    evaluation["forgetting"] = [b for b in evaluation["forgetting"] if b not in ("pubmedqa", "squadv2")]
    evaluation["in_domain"].append("pubmedqa")
    evaluation["surrogates"].append("squadv2")
    added = {"domains": {"medicine": {**MEDICINE, **entry}}}
    return plan(added=added, domains=[*paper["domains"], "medicine"], evaluation=evaluation)


def test_a_new_base_is_one_entry():
    made = plan(added={"bases": {"mine": MINE}}, bases=[*RAW["presets"]["paper"]["bases"], "mine"])
    assert made.spec("fetch_base", base="mine").items() >= {"source": "hub", "hub": "me/mine", "revision": "v1"}.items()
    more = {rule: count - PAPER[rule] for rule, count in made.job_counts().items()}
    assert (more["fetch_base"], more["train_specialist"], more["tokenise"], more["merge"], more["evaluate_general_1"]) == (1, 5, 5, 10, 12)


def test_a_new_domain_is_one_entry():
    made = with_medicine()
    assert made.training_sets[5] == "train_medicine"
    assert made.surrogates["medicine"] == ["squadv2"]
    assert made.spec("prepare", training_set="train_medicine")["entry"]["fields"] == {"prompt": "question", "response": "response"}
    counts = made.job_counts()
    assert (counts["train_specialist"], counts["vectors"], counts["statistics"]) == (48, 48, 144)
    group = next(group for group in made.groups if "pubmedqa" in group.benchmarks and "base" in group.models)
    assert "specialist_medicine" in next(group for group in made.groups if "squadv2" in group.benchmarks).models
    added = made.spec("evaluate", base="gemma-2-2b", model="base", group=group.name)["added"]["pubmedqa"]
    assert (added["domain"], added["role"], added["task"]) == ("medicine", "in_domain", "pubmedqa.yaml")


def test_a_training_set_of_unknown_size_is_planned_with_an_assumption_or_with_its_rows():
    assert Estimates(with_medicine()).training_rows("train_medicine") == UNKNOWN_ROWS
    assert Estimates(with_medicine(training={"id": "me/medicine", "rows": 123})).training_rows("train_medicine") == 123
    Estimates(with_medicine()).of("train", base="gemma-2-2b", model="multitask")


def test_an_entry_of_a_domain_makes_stale_what_reads_it():
    first = json.dumps(with_medicine().spec("prepare", training_set="train_medicine"))
    assert first != json.dumps(with_medicine(training={"id": "me/other"}).spec("prepare", training_set="train_medicine"))


def test_additions_that_a_preset_does_not_use_change_none_of_its_specs():
    assert specs(plan(added={"bases": {"mine": MINE}, "domains": {"medicine": MEDICINE}})) == specs(plan())


@pytest.mark.parametrize(
    ("added", "said"),
    [
        ({"bases": {"gemma-2-2b": MINE}}, "catalogue.bases: 'gemma-2-2b' is in the catalogue already"),
        ({"bases": {"mine": {"size": "small", "parameters": 5}}}, "hub and path: give one of the two"),
        ({"bases": {"mine": {**MINE, "sizes": 1}}}, "catalogue.bases.mine.sizes is not a key"),
        ({"domains": {"medicine": {**MEDICINE, "in_domain": ["pubmedq"]}}}, "did you mean 'pubmedqa'"),
        ({"domains": {"medicine": {**MEDICINE, "surrogates": ["pubmedqa"]}}}, "'pubmedqa' already measures another domain or role"),
        ({"domains": {"medicine": {**MEDICINE, "training": {}}}}, "id and file: give id for source hub"),
        ({"domains": {"my_domain": MEDICINE}}, "string should match pattern"),
    ],
)
def test_a_wrong_addition_is_one_sentence(added, said):
    with pytest.raises(MergebenchError, match=re.escape(said)) as raised:
        plan(added=added)
    assert "\n" not in str(raised.value)
