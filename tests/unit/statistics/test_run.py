"""The statistics job: pairing of specialist and data, several kinds in one process, inputs left alone."""

import json

import pytest

from mergebench.artifacts import Job, execute, inventory
from mergebench.errors import MergebenchError
from mergebench.merging.statistics import run as stage
from mergebench.merging.statistics.store import Statistics
from tests.unit.training.pico import sums, write_rows

KINDS = ["fisher", "gram", "mask"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_rows(tmp_path_factory.mktemp("data") / "train_math", sums(4), calibration=sums(10, 4))


def job(out, weights, specialist, data, **changes):
    spec = {
        "base": "pico",
        "domain": "math",
        "kinds": KINDS,
        "calibration": {"rows": 8},
        "settings": {"mask": {"steps": 3}},
        "template": "chat",
        "seed": 0,
    } | changes
    names = spec.get("kinds") or ["statistics"]
    outputs = {name: out / f"{name}.safetensors" for name in names} | {"manifest": out / "manifest.json"}
    return Job("statistics", spec, {"base": weights, "specialist": specialist, "data": data}, outputs, out / "state")


def test_all_kinds_come_from_one_process(pico_base, pico_specialist, data, tmp_path):
    execute(stage, job(tmp_path, pico_base, pico_specialist, data))
    facts = json.loads((tmp_path / "manifest.json").read_text())["kinds"]
    for kind in KINDS:
        statistics = Statistics(tmp_path / f"{kind}.safetensors")
        assert statistics.facts["domain"] == "math"
        assert statistics.facts["kind"] == kind
        assert statistics.get("model.layers.0.self_attn.v_proj.weight") is not None
        assert facts[kind]["rows"] == 8
        assert facts[kind]["memory_bytes"]["model"] > 0


def test_the_kinds_do_not_disturb_each_other(pico_base, pico_specialist, data, tmp_path):
    execute(stage, job(tmp_path / "all", pico_base, pico_specialist, data))
    for kind in KINDS:
        execute(stage, job(tmp_path / kind, pico_base, pico_specialist, data, kinds=None, kind=kind))
        alone = (tmp_path / kind / "statistics.safetensors").read_bytes()
        assert alone == (tmp_path / "all" / f"{kind}.safetensors").read_bytes()


def test_base_and_specialist_files_are_unchanged(pico_base, pico_specialist, data, tmp_path):
    before = inventory(pico_base), inventory(pico_specialist)
    execute(stage, job(tmp_path, pico_base, pico_specialist, data))
    assert (inventory(pico_base), inventory(pico_specialist)) == before


def test_a_mask_may_leave_the_embeddings_out(pico_base, pico_specialist, data, tmp_path):
    settings = {"mask": {"steps": 1}}
    execute(stage, job(tmp_path, pico_base, pico_specialist, data, kinds=["mask"], settings=settings, scope="no-embeddings"))
    mask = Statistics(tmp_path / "mask.safetensors")
    assert mask.get("model.embed_tokens.weight") is None
    assert mask.get("model.norm.weight") is not None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"domain": "coding"}, "expected train_coding"),
        ({"base": "other"}, "expected other/specialist_math"),
        ({"kinds": ["hessian"]}, "'hessian' is unknown; allowed: fisher, gram, mask"),
        ({"settings": {"gram": {"alpha": 1}}}, "settings.gram.alpha"),
    ],
)
def test_a_wrong_request_is_refused(pico_base, pico_specialist, data, tmp_path, changes, message):
    with pytest.raises(MergebenchError, match=message):
        execute(stage, job(tmp_path, pico_base, pico_specialist, data, **changes))


def test_another_domains_rows_are_refused(pico_base, pico_specialist, tmp_path):
    coding = write_rows(tmp_path / "train_coding", sums(4), calibration=sums(4))
    with pytest.raises(MergebenchError, match=r"were given rows of .*train_coding; expected train_math"):
        execute(stage, job(tmp_path, pico_base, pico_specialist, coding))


def test_a_specialist_trained_on_another_domain_is_refused(pico_specialist, data, tmp_path):
    weights = tmp_path / "pico" / "specialist_math" / "weights"
    weights.mkdir(parents=True)
    (weights.parent / "manifest.json").write_text('{"domains": ["coding"]}')
    with pytest.raises(MergebenchError, match=r"trained on \['coding'\]"):
        stage.check_pairing({"base": "pico", "domain": "math"}, weights, data)
