"""The statistics job: pairing of specialist and data, several kinds in one process, inputs left alone."""

import json

import pytest

from mergebench.artifacts import Job, execute, inventory, sha256_file
from mergebench.checkpoints.digest import weights_digest
from mergebench.errors import MergebenchError
from mergebench.merging.statistics import run as stage
from mergebench.merging.statistics.calibration import check_pairing, subset
from mergebench.merging.statistics.fisher import Fisher
from mergebench.merging.statistics.parts import Parts
from mergebench.merging.statistics.store import Statistics
from mergebench.merging.statistics.task import Task
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


def test_a_job_that_asks_for_no_rows_at_a_time_is_refused(pico_base, pico_specialist, data, tmp_path):
    made = job(tmp_path, pico_base, pico_specialist, data, kinds=["fisher"])
    made.requested = {"batch_rows": 0}
    with pytest.raises(MergebenchError, match=r"--requested\.batch_rows: .*greater than or equal to 1 \(found 0\)"):
        execute(stage, made)


def test_another_domains_rows_are_refused(pico_base, pico_specialist, tmp_path):
    coding = write_rows(tmp_path / "train_coding", sums(4), calibration=sums(4))
    with pytest.raises(MergebenchError, match=r"were given rows of .*train_coding; expected train_math"):
        execute(stage, job(tmp_path, pico_base, pico_specialist, coding))


def test_a_specialist_trained_on_another_domain_is_refused(pico_specialist, data, tmp_path):
    weights = tmp_path / "pico" / "specialist_math" / "weights"
    weights.mkdir(parents=True)
    (weights.parent / "manifest.json").write_text('{"domains": ["coding"]}')
    with pytest.raises(MergebenchError, match=r"trained on \['coding'\]"):
        check_pairing({"base": "pico", "domain": "math"}, weights, data)


def test_rows_that_have_changed_since_they_were_prepared_are_refused(pico_base, pico_specialist, tmp_path):
    changed = write_rows(tmp_path / "data" / "train_math", sums(4), calibration=sums(10, 4))
    rows = changed.with_name("calibration.jsonl")
    rows.write_text(rows.read_text().replace("####", "###!"))  # as many bytes
    with pytest.raises(MergebenchError, match=r"calibration\.jsonl has SHA-256 .*, manifest\.json records .*: make the data again"):
        execute(stage, job(tmp_path, pico_base, pico_specialist, changed))


def test_rows_of_another_domain_under_this_domains_name_are_refused(pico_base, pico_specialist, tmp_path):
    coding = write_rows(tmp_path / "train_coding", sums(4), calibration=sums(4))
    renamed = coding.parent.rename(tmp_path / "train_math") / "manifest.json"
    with pytest.raises(MergebenchError, match=r"manifest\.json is of 'train_coding'; statistics of math expect 'train_math'"):
        execute(stage, job(tmp_path, pico_base, pico_specialist, renamed))


def test_a_training_set_without_calibration_rows_is_refused(pico_base, pico_specialist, tmp_path):
    with pytest.raises(MergebenchError, match="comes with no calibration rows"):
        execute(stage, job(tmp_path, pico_base, pico_specialist, write_rows(tmp_path / "train_math", sums(4))))


def test_rows_that_share_text_with_a_benchmark_are_left_out(pico_base, pico_specialist, data, tmp_path):
    (tmp_path / "hits.jsonl").write_text('{"id": "sum-4", "overlaps": {}}\n')
    made = job(tmp_path, pico_base, pico_specialist, data, kinds=["fisher"], calibration={})
    made.inputs["hits"] = tmp_path / "hits.jsonl"
    execute(stage, made)
    assert json.loads((tmp_path / "manifest.json").read_text())["kinds"]["fisher"]["rows"] == 9


def test_the_file_names_what_it_was_measured_on(pico_base, pico_specialist, data, tmp_path):
    execute(stage, job(tmp_path, pico_base, pico_specialist, data, kinds=["fisher"], settings={"fisher": {"rows": 5}}))
    facts = Statistics(tmp_path / "fisher.safetensors").facts
    assert facts["calibration_sha256"] == sha256_file(data.with_name("calibration.jsonl"))
    assert facts["base_weights"] == weights_digest(pico_base)
    assert facts["specialist_weights"] == weights_digest(pico_specialist)
    assert facts["settings"] == {"rows": 5, "labels": "sampled", "k": 5, "dtype": "float32"}
    assert (facts["rows"], facts["domain"], facts["base"]) == (5, "math", "pico")


def test_groups_and_batches_of_any_size_and_activations_that_do_not_fit_give_the_same_bytes(
    pico_base, pico_specialist, data, tmp_path, monkeypatch
):
    made = {}
    for name, room, batch in (("whole", 1 << 40, 1), ("unit by unit", 1, 3)):
        monkeypatch.setattr(Task, "room", lambda task, room=room: room)
        asked = job(tmp_path / name, pico_base, pico_specialist, data, kinds=["fisher"])
        asked.requested = {"batch_rows": batch}
        execute(stage, asked)
        made[name] = (tmp_path / name / "fisher.safetensors").read_bytes()
    assert made["unit by unit"] == made["whole"]


def test_a_killed_fisher_goes_on_and_gives_the_same_bytes(pico_base, pico_specialist, data, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    plain, seen = Fisher.add, []

    def dying(self, example, sums):
        seen.append(example.id)
        if len(seen) == 13:
            raise Killed
        plain(self, example, sums)

    settings = {"save_seconds": 0}
    monkeypatch.setattr(Task, "room", lambda task: 1)  # 4 units of 8 rows: dies in the second
    execute(stage, job(tmp_path / "whole", pico_base, pico_specialist, data, kinds=["fisher"]))
    monkeypatch.setattr(Fisher, "add", dying)
    for _ in range(2):
        made = job(tmp_path / "broken", pico_base, pico_specialist, data, kinds=["fisher"])
        made.requested = settings
        try:
            execute(stage, made)
        except Killed:
            assert not (tmp_path / "broken" / "fisher.safetensors").exists()
    assert len(seen) == 4 * 8 + 1  # the row at which it died is the only one seen twice
    assert (tmp_path / "broken" / "fisher.safetensors").read_bytes() == (tmp_path / "whole" / "fisher.safetensors").read_bytes()
    assert json.loads((tmp_path / "broken" / "manifest.json").read_text()) == json.loads((tmp_path / "whole" / "manifest.json").read_text())


def test_a_subset_is_uniform_seeded_and_part_of_a_larger_one():
    rows = [{"id": f"row-{i}"} for i in range(1000)]
    few, more = subset(rows, 100, 0), subset(rows, 300, 0)
    assert len(few) == 100
    assert [row for row in rows if row in few] == few
    assert all(row in more for row in few)
    assert subset(list(reversed(rows)), 100, 0) == list(reversed(few))
    assert subset(rows, 100, 1) != few
    assert subset(rows, None, 0) == subset(rows, 5000, 0) == rows
    places = [int(row["id"][4:]) for row in few]
    assert 400 < sum(places) / 100 < 600  # of a uniform draw the mean place is 500, with deviation 29
    assert min(places) < 100 < 900 < max(places)


def test_what_was_left_by_other_settings_is_not_used(pico_base, pico_specialist, data, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def save_and_die(parts, unit, tensors, save=Parts.save):
        save(parts, unit, tensors)
        raise Killed

    monkeypatch.setattr(Task, "room", lambda task: 1)
    with monkeypatch.context() as dying:
        dying.setattr(Parts, "save", save_and_die)
        with pytest.raises(Killed):
            execute(stage, job(tmp_path / "broken", pico_base, pico_specialist, data, kinds=["fisher"], seed=0))
    for folder in ("broken", "clean"):
        execute(stage, job(tmp_path / folder, pico_base, pico_specialist, data, kinds=["fisher"], seed=1))
    assert (tmp_path / "broken/fisher.safetensors").read_bytes() == (tmp_path / "clean/fisher.safetensors").read_bytes()
