"""Wrong configurations are refused in one sentence that says where, what, and what is allowed."""

import copy
from pathlib import Path

import pytest
import yaml

from mergebench import config
from mergebench.errors import MergebenchError

ROOT = Path(__file__).parents[2]
RAW = yaml.safe_load((ROOT / "config.yaml").read_text())


def broken(change):
    raw = copy.deepcopy({"preset": "tiny", "presets": {"tiny": RAW["presets"]["tiny"]}})
    change(raw["presets"]["tiny"])
    with pytest.raises(MergebenchError) as error:
        config.parse(raw)
    message = str(error.value)
    assert "\n" not in message
    return message


def test_the_shipped_file_is_valid():
    assert config.load(ROOT / "config.yaml").preset == "paper"


@pytest.mark.parametrize("preset", RAW["presets"])
def test_every_preset_can_be_selected(preset):
    assert config.parse({**copy.deepcopy(RAW), "preset": preset}).selected.bases


def test_an_unknown_key_names_its_path_and_the_nearest_key():
    message = broken(lambda p: p["evaluation"].update(max_token=3))
    assert "presets.tiny.evaluation.max_token" in message
    assert "did you mean 'max_tokens'?" in message


def test_an_unknown_key_deep_inside():
    message = broken(lambda p: p["training"]["supervised"]["tiny"].update(learningrate=1))
    assert "presets.tiny.training.supervised.tiny.learningrate" in message
    assert "'learning_rate'" in message


def test_a_wrong_type_names_the_value_found():
    message = broken(lambda p: p["data"].update(limit="many"))
    assert "presets.tiny.data.limit" in message
    assert '"many"' in message


def test_an_unknown_choice_lists_what_is_allowed():
    message = broken(lambda p: p["data"].update(source="tinny"))
    assert "presets.tiny.data.source" in message
    assert "did you mean 'tiny'?" in message


@pytest.mark.parametrize(
    ("change", "key", "nearest"),
    [
        (lambda p: p["bases"].append("tiny-lama-weak"), "bases", "tiny-llama-weak"),
        (lambda p: p["evaluation"]["in_domain"].append("gsm8"), "evaluation.in_domain", "gsm8k"),
        (lambda p: p["merging"]["methods"].update(tie={}), "merging.methods", "ties"),
        (lambda p: p["merging"]["methods"]["ties"]["grid"].update(densty=[0.1]), "merging.methods.ties.grid", "density"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(change, key, nearest):
    message = broken(change)
    assert key in message
    assert f"did you mean {nearest!r}?" in message


def test_controls_are_no_methods_and_methods_no_controls():
    message = broken(lambda p: p["merging"]["methods"].update(random_direction={}))
    assert "merging.methods: random_direction is a control, not a method; write it under merging.controls" in message
    assert "merging.controls: 'ties' is not known" in broken(lambda p: p["merging"]["controls"].update(ties={}))
    assert "merging.controls.random_direction.seeds is 0" in broken(
        lambda p: p["merging"].update(controls={"random_direction": {"seeds": 0}})
    )


def test_a_grid_value_out_of_range():
    message = broken(lambda p: p["merging"]["methods"]["ties"]["grid"].update(density=[2.0]))
    assert "merging.methods.ties.grid.density" in message
    assert "outside [0, 1]" in message


def test_a_judge_of_harm_cannot_judge_refusals():
    def choose(preset, *names):
        preset["evaluation"]["judge"] = "harmbench"
        for name in names:
            preset["evaluation"]["in_domain"].remove(name)

    assert "harmbench labels harm alone, and xstest is about refusals" in broken(choose)
    raw = copy.deepcopy({"preset": "tiny", "presets": {"tiny": RAW["presets"]["tiny"]}})
    choose(raw["presets"]["tiny"], "xstest")
    assert config.parse(raw).selected.evaluation.judge == "harmbench"


def test_a_domain_without_a_surrogate():
    message = broken(lambda p: p["evaluation"]["surrogates"].remove("lambada"))
    assert "multilingual" in message
    assert "surrogate" in message


def test_released_prompts_go_through_no_chat_template():
    message = broken(lambda p: p["evaluation"].update(protocol="released", apply_chat_template=True))
    assert "evaluation.apply_chat_template: is true, but protocol released sends prompts without template" in message


def test_names_twice():
    assert "named twice" in broken(lambda p: p["bases"].append(p["bases"][0]))


def test_an_unknown_preset():
    with pytest.raises(MergebenchError, match="did you mean 'tiny'"):
        config.parse({**copy.deepcopy(RAW), "preset": "tini"})


def test_yaml_that_does_not_parse(tmp_path):
    (tmp_path / "config.yaml").write_text("a: [1")
    with pytest.raises(MergebenchError, match=r"config\.yaml is not valid YAML"):
        config.load(tmp_path / "config.yaml")


def test_the_schema_describes_every_top_level_key():
    schema = config.schema()
    assert set(schema["properties"]) == {"preset", "presets", "results", "catalogue"}
    assert schema["$schema"].endswith("2020-12/schema")


def test_a_judge_that_labels_no_refusals_cannot_score_xstest():
    def change(judge, benchmarks):
        raw = yaml.safe_load((ROOT / "config.yaml").read_text())
        raw["presets"]["paper"]["evaluation"] |= {"judge": judge, "in_domain": benchmarks}
        return {**raw, "preset": "paper"}

    others = ["ifeval", "gsm8k", "m_arc", "mbppplus", "harmbench"]
    with pytest.raises(MergebenchError, match=r"evaluation\.judge: harmbench labels harm alone.*xstest"):
        config.parse(change("harmbench", [*others, "xstest"]))
    assert config.parse(change("harmbench", others)).selected.evaluation.judge == "harmbench"
    assert config.parse(change("wildguard", [*others, "xstest"])).selected.evaluation.judge == "wildguard"
