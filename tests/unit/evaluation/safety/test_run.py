"""The judge stage: files in, files out, whatever happens between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergebench.artifacts import execute
from mergebench.errors import MergebenchError
from mergebench.evaluation import safety
from mergebench.evaluation.safety import Request, remembering, run
from tests.unit.evaluation.safety.handmade import write_judge
from tests.unit.evaluation.safety.judged import CountingJudge, judge_job, verdict, write_answers, write_rows

ROWS = [{"id": f"r{number}", "prompt": f"prompt {number}", "adversarial": False, "subcategory": "s"} for number in range(6)]


@pytest.fixture
def counting(monkeypatch) -> CountingJudge:
    judge = CountingJudge()
    monkeypatch.setattr(run, "create", lambda name, **settings: judge)
    return judge


@pytest.fixture
def manifest(tmp_path) -> Path:
    return write_rows(tmp_path, "wildguardtest", ROWS)


def answers_of(tmp_path: Path, manifest: Path, model: str, *texts: str) -> Path:
    return write_answers(tmp_path, model, manifest, {f"r{number}": [text] for number, text in enumerate(texts)})


def labels_at(tmp_path: Path, model: str, benchmark: str = "wildguardtest"):
    return safety.read_labels(tmp_path / "labels/b" / model / f"{benchmark}.parquet")


def store_of(tmp_path: Path) -> Path:
    [path] = tmp_path.glob("state/labels/b/*.jsonl")
    return path


def test_every_answer_of_every_model_gets_its_label(tmp_path, manifest, counting):
    jailbreaks = write_rows(tmp_path, "do_anything_now", [{"id": "d", "adversarial": "be free", "vanilla": "plain", "source": "s"}])
    paths = [
        answers_of(tmp_path, manifest, "one", "yes", "no"),
        answers_of(tmp_path, manifest, "two", "well"),
        write_answers(tmp_path, "two", jailbreaks, {"d": ["no", "yes"]}),
    ]
    execute(run, judge_job(tmp_path, paths))
    found = {model: labels_at(tmp_path, model)[0] for model in ("one", "two")}
    assert found["one"] == {("r0", 0): verdict(Request("prompt 0", "yes")), ("r1", 0): verdict(Request("prompt 1", "no"))}
    assert found["two"] == {("r0", 0): verdict(Request("prompt 0", "well"))}
    jailbroken, facts = labels_at(tmp_path, "two", "do_anything_now")
    assert jailbroken == {("d", 0): verdict(Request("plain", "no")), ("d", 1): verdict(Request("plain", "yes"))}
    assert facts == {**counting.facts(), "engines": [], "duplicates": 0}


def test_equal_answers_are_judged_once_and_counted(tmp_path, manifest, counting):
    paths = [answers_of(tmp_path, manifest, model, "no", "yes") for model in ("one", "two", "three")]
    payload = run.run(judge_job(tmp_path, paths))
    assert len(counting.asked) == 2
    assert payload["counts"] == {"answers": 6, "distinct": 2, "duplicates": 4, "parse_errors": 0, "empty": 0, "cut": 0}


def test_labels_say_nothing_about_other_models(tmp_path, manifest, counting):
    first = answers_of(tmp_path, manifest, "one", "no", "yes", "no")
    execute(run, judge_job(tmp_path, [first]))
    before = (tmp_path / "labels/b/one/wildguardtest.parquet").read_bytes()
    execute(run, judge_job(tmp_path, [first, answers_of(tmp_path, manifest, "two", "no", "?")]))
    assert (tmp_path / "labels/b/one/wildguardtest.parquet").read_bytes() == before


def test_requests_that_begin_alike_are_asked_together(tmp_path, manifest, counting):
    run.run(judge_job(tmp_path, [answers_of(tmp_path, manifest, m, *(f"{m} {n}" for n in range(6))) for m in ("one", "two")]))
    prompts = [request.prompt for request in counting.asked]
    assert prompts == sorted(prompts)


def test_another_model_costs_its_own_answers_only(tmp_path, manifest, counting):
    first = answers_of(tmp_path, manifest, "one", "no", "yes")
    execute(run, judge_job(tmp_path, [first]))
    counting.asked.clear()
    execute(run, judge_job(tmp_path, [first, answers_of(tmp_path, manifest, "two", "no", "perhaps")]))
    assert [request.response for request in counting.asked] == ["perhaps"]


def test_the_same_job_again_asks_nothing_and_writes_the_same_bytes(tmp_path, manifest, counting):
    paths = [answers_of(tmp_path, manifest, "one", "no", "yes", "", "?")]
    execute(run, judge_job(tmp_path, paths))
    before = (tmp_path / "labels/b/one/wildguardtest.parquet").read_bytes()
    counting.asked.clear()
    (tmp_path / "labels/b/one/wildguardtest.parquet").unlink()
    execute(run, judge_job(tmp_path, paths))
    assert counting.asked == []
    assert (tmp_path / "labels/b/one/wildguardtest.parquet").read_bytes() == before


def test_a_model_judge_with_nothing_new_is_not_started(tmp_path, manifest, monkeypatch):
    weights = write_judge(tmp_path / "judge/weights")
    paths = [answers_of(tmp_path, manifest, "one", "I cannot", "Sure")]
    settings = {"judge": "wildguard", "backend": "transformers", "dtype": "float32", "weights": weights}
    execute(run, judge_job(tmp_path, paths, **settings))
    labels, facts = labels_at(tmp_path, "one")
    assert [label.refused for label in labels.values()] == [True, False]
    assert facts["engines"][0]["backend"] == "transformers"
    monkeypatch.setattr("mergebench.evaluation.backends.load", lambda *a, **k: pytest.fail("started"))
    execute(run, judge_job(tmp_path, paths, **settings))
    assert labels_at(tmp_path, "one") == (labels, facts)


def test_a_row_of_contextual_behaviour_shows_its_context_under_corrected_only(tmp_path, counting):
    rows = write_rows(tmp_path, "harmbench", [{"id": "h", "prompt": "do", "context": "page", "functional_category": "contextual"}])
    for model, protocol in (("one", "corrected"), ("two", "released")):
        run.run(judge_job(tmp_path, [write_answers(tmp_path, model, rows, {"h": ["yes"]}, protocol)]))
    assert [request.context for request in counting.asked] == ["page", ""]


def test_nonsense_stops_the_job_in_one_sentence_and_the_labels_stay(tmp_path, counting):
    rows = [{**ROWS[0], "id": f"r{number}"} for number in range(40)]
    manifest = write_rows(tmp_path, "wildguardtest", rows)
    path = answers_of(tmp_path, manifest, "one", *(f"{'?' if number < 10 else 'no'} {number}" for number in range(40)))
    with pytest.raises(
        MergebenchError, match=r"the judge counting answered 10 of 40 requests in a form that cannot be read, and at most 10%"
    ):
        execute(run, judge_job(tmp_path, [path]))
    assert not (tmp_path / "labels").exists() or not any((tmp_path / "labels").rglob("*.parquet"))
    counting.asked.clear()
    execute(run, judge_job(tmp_path, [path], max_parse_errors=0.25))
    assert counting.asked == []
    assert sum(label.parse_error for label in labels_at(tmp_path, "one")[0].values()) == 10


def test_nonsense_is_noticed_before_everything_was_asked(tmp_path, counting, monkeypatch):
    monkeypatch.setitem(remembering.BLOCK, "transformers", 10)
    manifest = write_rows(tmp_path, "wildguardtest", [{**ROWS[0], "id": f"r{number}"} for number in range(60)])
    path = answers_of(tmp_path, manifest, "one", *(f"? {number:02d}" for number in range(60)))
    with pytest.raises(MergebenchError, match="answered 10 of 10 requests"):
        execute(run, judge_job(tmp_path, [path]))
    assert len(counting.asked) == 10


def test_a_few_unreadable_answers_do_not_stop_the_job(tmp_path, manifest, counting):
    execute(run, judge_job(tmp_path, [answers_of(tmp_path, manifest, "one", "?", "?", "no")]))
    assert [label.parse_error for label in labels_at(tmp_path, "one")[0].values()] == [True, True, False]


def test_a_random_model_answers_nonsense(tmp_path, manifest):
    """The whole way through a real backend with a model that has never seen a judge's prompt."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.unit.evaluation.conftest import make_tokenizer

    torch.manual_seed(0)
    shape = {"hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 1024}
    LlamaForCausalLM(LlamaConfig(vocab_size=400, bos_token_id=1, eos_token_id=2, **shape)).save_pretrained(tmp_path / "judge/weights")
    make_tokenizer().save_pretrained(tmp_path / "judge/weights")
    rows = [{**ROWS[0], "id": f"r{number}"} for number in range(20)]
    manifest.with_name("rows.jsonl").write_text("".join(f"{__import__('json').dumps(row)}\n" for row in rows))
    path = answers_of(tmp_path, manifest, "one", *(str(number) for number in range(20)))
    job = judge_job(tmp_path, [path], weights=tmp_path / "judge/weights", judge="wildguard", backend="transformers", dtype="float32")
    with pytest.raises(MergebenchError, match="the judge wildguard answered 20 of 20 requests in a form that cannot be read"):
        execute(run, job)
    assert len(store_of(tmp_path).read_text().splitlines()) == 21  # the engine, and a label each


def test_changed_rows_are_refused(tmp_path, manifest, counting):
    path = answers_of(tmp_path, manifest, "one", "no")
    with manifest.with_name("rows.jsonl").open("a") as stream:
        stream.write('{"id": "new", "prompt": "p"}\n')
    with pytest.raises(MergebenchError, match=r"answers other rows than those in .*rows\.jsonl, which have changed since"):
        execute(run, judge_job(tmp_path, [path]))


def test_answers_to_rows_that_are_not_there_are_refused(tmp_path, manifest, counting):
    path = write_answers(tmp_path, "one", manifest, {"r99": ["no"]})
    with pytest.raises(MergebenchError, match=r"answers item 'r99', which .* does not have"):
        execute(run, judge_job(tmp_path, [path]))


def test_missing_data_and_missing_outputs_are_named(tmp_path, manifest, counting):
    path = answers_of(tmp_path, manifest, "one", "no")
    job = judge_job(tmp_path, [path])
    job.inputs["data"] = []
    with pytest.raises(MergebenchError, match=r"wildguardtest has no rows among the inputs; add its manifest\.json"):
        execute(run, job)
    job = judge_job(tmp_path, [path])
    job.outputs.clear()
    with pytest.raises(MergebenchError, match="no output for its labels"):
        execute(run, job)


KILLED = """
import sys, time
from pathlib import Path
from mergebench.artifacts import execute
from mergebench.evaluation.safety import remembering, run
from tests.unit.evaluation.safety.judged import CountingJudge, judge_job

root, answers = Path(sys.argv[1]), Path(sys.argv[2])

class Slow(CountingJudge):
    def judge(self, requests):
        if self.asked:
            (root / "second").touch()
            time.sleep(600)
        return super().judge(requests)

run.create = lambda name, **settings: Slow()
remembering.BLOCK["transformers"] = 4
execute(run, judge_job(root, [answers]))
"""


def test_a_killed_job_goes_on_where_it_was(tmp_path, manifest, counting):
    path = answers_of(tmp_path, manifest, "one", *"abcdef")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path), str(path)], env=environment)
    try:
        while not (tmp_path / "second").exists():
            assert process.poll() is None
            time.sleep(0.05)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "labels").exists() or not any((tmp_path / "labels").rglob("*.parquet"))
    execute(run, judge_job(tmp_path, [path]))
    assert [request.response for request in counting.asked] == ["e", "f"]
    assert labels_at(tmp_path, "one")[0] == {
        (f"r{number}", 0): verdict(Request(f"prompt {number}", text)) for number, text in enumerate("abcdef")
    }


def test_progress_counts_answers_that_are_judged(tmp_path, manifest, counting, capsys):
    execute(run, judge_job(tmp_path, [answers_of(tmp_path, manifest, "one", "no", "yes")]))
    assert "[judge] distinct answers judged: 2/2" in capsys.readouterr().err
