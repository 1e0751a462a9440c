"""Ours and lm-eval's own tasks, built on the same records, ask the same questions and give the same answers the same scores.

A scripted model answers both: log-likelihoods are a function of context and continuation, and generated text is one of several
candidates for the question, right, wrong and malformed. It is asked by context, so a prompt that differs in one character is not known
to it.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.evaluator import evaluate

from mergebench.data.convert import HUB
from mergebench.data.records import Record, Row
from mergebench.evaluation import instruction_following
from mergebench.evaluation.harness import Record as Scored
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.local_tasks import load_task
from mergebench.evaluation.official import lm_eval as official
from mergebench.evaluation.settings import BenchmarkSetting
from tests.instruction_oracle import follow
from tests.integration import stock

# TriviaQA's second question mark and MATH's extraction are lm-eval's under the protocol that keeps them.
PROTOCOL = {"triviaqa": "released", "math": "released"}
ROUNDS = 4


def candidates(benchmark: str, row: Row) -> list[str]:
    """Answers to a row: right ones first, then what scorers stumble over."""
    if benchmark == "gsm8k":
        target = row["answer"].split("####")[-1].strip()
        return [
            f" The answer is {target}.",
            f" The answer is ${target}.00.",
            f"#### {target}",
            f"{target} apples, not 12.",
            " The answer is 1,2,.",
            f"So {target}.",
            "",
            "...",
            "no number",
            f" The answer is {target}",
            "-",
            f"The answer is -{target}. The answer is {target}.",
            "١٢",
            "$",
        ]
    if benchmark == "triviaqa":
        alias = row["aliases"][0]
        return [f" {alias}", f" {alias.upper()}! ", f"the {alias}", "", " ", "zzqx", f"\t{alias}\t", alias.replace(" ", "  ")]
    if benchmark == "squadv2":
        gold = row["answers"][0] if row["answers"] else "unanswerable"
        return [f" {gold}", f"the {gold}!", f"{gold} or so", "", " ", "unanswerable", "zzqx"]
    if benchmark == "coqa":
        gold = row["answers"][-1][-1]
        return [f" {gold}", f"The {gold}.", f"{gold}\nand more", "\nlate", "", "a", f"not {gold} at all", "zzqx"]
    if benchmark == "wmt14":
        gold = row["target"]
        return [f" {gold}", gold.lower(), " ".join(gold.split()[::-1]), f"{gold} {gold}", "", ",,,", gold.replace(".", " .")]
    if benchmark == "ifeval":
        right = follow(row)
        return [right, f"# Title\n{right}\nEnd", f"**{right}**", "", "\n\n", "{}", "hello, tree tree bye", "* a\n* b", "[[[", "ß" * 30]
    if benchmark == "math":
        answer = row["answer"]
        return [
            f"${answer}$",
            f"  {answer}",
            f"It is ${answer}$.",
            f"$x$ and ${answer}$",
            f"\\boxed{{{answer}}}",
            "",
            "$",
            "$$",
            "\\frac{",
            "$5$",
            f"${answer.replace('frac', 'dfrac')}$",
            "1/2",
            ".5",
            "x = 5",
            "\\sqrt",
            "{}",
        ]
    raise KeyError(benchmark)


class Scripted(LM):
    """Answers by context: what the rows of our task lead to, in round `turn`."""

    tokenizer_name = "scripted"

    def __init__(self, answers: dict[str, list[str]], turn: int) -> None:
        super().__init__()
        self.answers, self.turn = answers, turn

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = True) -> list[str]:
        texts = []
        for request in requests:
            context, settings = request.args
            options = self.answers[context]
            text = options[(digest(context) + self.turn) % len(options)]
            for stop in settings.get("until", []):
                text = text.split(stop)[0]
            texts.append(text)
        return texts

    def loglikelihood(self, requests: list[Instance], disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        numbers = [digest(f"{request.args[0]}\0{request.args[1]}\0{self.turn}") for request in requests]
        return [(-(number % 1000) / 50 - 0.01, number % 3 == 0) for number in numbers]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = True) -> list[float]:
        raise NotImplementedError


def digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def real_root() -> Path | None:
    root = os.environ.get("MERGEBENCH_REAL_DATA", "")
    return Path(root) if root and Path(root).is_dir() else None


class Pair:
    """A benchmark on both sides, on own or real records."""

    def __init__(self, benchmark: str, source: str, folder: Path, shots: int | None = None) -> None:
        self.benchmark, self.source = benchmark, source
        self.real = None
        if source == "real":
            self.real = real_root()
            if self.real is None:
                pytest.skip("MERGEBENCH_REAL_DATA does not name a folder with the benchmarks' real files")
            parts = stock.REAL[benchmark](self.real)
            parts = {part: records[: stock.REAL_ROWS] for part, records in parts.items()}
        else:
            parts = stock.OWN[benchmark]
        examples = {part: stock.worked_examples(self.real, part) for part in parts} if benchmark == "mmlu" else {}
        flat = [record for records in parts.values() for record in records]
        self.rows = convert(benchmark, {"rows": flat} if benchmark == "mmlu" or list(parts) == [""] else parts)
        folder.mkdir(parents=True)
        write(folder / "rows.jsonl", self.rows)
        write(folder / "examples.jsonl", convert("mmlu", {"rows": [r for some in examples.values() for r in some]}) if examples else [])
        protocol: Any = PROTOCOL.get(benchmark, "corrected")
        self.setting = BenchmarkSetting(benchmark, protocol=protocol, shots=shots, limit=None)
        self.data = {benchmark: folder / "rows.jsonl"}
        if benchmark == "ifeval":
            instruction_following._checkers()  # imports lm-eval's module, which else asks the network
        self.theirs = {
            part: stock.task(benchmark, part, records, shots=shots, examples=examples.get(part)) for part, records in parts.items()
        }

    def answers(self) -> dict[str, list[str]]:
        task = load_task(self.setting, self.data[self.benchmark])
        if task.OUTPUT_TYPE != "generate_until":
            return {}
        return {task.context(doc): candidates(self.benchmark, doc) for doc in task.eval_docs}

    def ours(self, lm: LM) -> Scored:
        return Suite([self.setting], self.data).evaluate(lm)[self.benchmark]

    def stock_samples(self, lm: LM, metric: str, filtered: str = "none") -> tuple[list[float], dict[str, float]]:
        """lm-eval's outcomes in our order of rows, and its value for each part."""
        outcomes, values = [], {}
        for part, task in self.theirs.items():
            name = str(task.config.task)
            found = evaluate(lm, {"tasks": {name: task}, "groups": {}, "group_map": {}}, bootstrap_iters=0)
            samples = [s for s in found["samples"][name] if s["filter"] == filtered]
            outcomes += [s[metric] for s in sorted(samples, key=lambda s: s["doc_id"])]
            values[part] = found["results"][name][f"{metric},{filtered}"]
        return outcomes, values


def convert(benchmark: str, parts: dict[str, stock.Records]) -> list[Row]:
    named = {part: [Record(record, f"{part}, row {i}") for i, record in enumerate(records)] for part, records in parts.items()}
    if benchmark == "pubmedqa":
        (records,) = named.values()
        articles = Record({record["id"]: record for record in records}, "articles")
        named = {"articles": [articles], "test": [Record({r["id"]: r["final_decision"] for r in records}, "test")]}
    return HUB[benchmark](named, 0)


def write(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


BENCHMARKS = list(stock.OWN)
REAL = pytest.param("real", marks=pytest.mark.real)
SOURCES = [(name, "own") for name in BENCHMARKS] + [
    pytest.param(name, "real", marks=pytest.mark.real) for name in BENCHMARKS if name in stock.REAL
]


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Pair]:
    made: dict[Any, Pair] = {}

    def get(benchmark: str, source: str, shots: int | None = None) -> Pair:
        key = (benchmark, source, shots)
        if key not in made:
            made[key] = Pair(benchmark, source, tmp_path_factory.mktemp("parity") / benchmark, shots)
        return made[key]

    return get


def asked(task: Any) -> list[tuple[Any, ...]]:
    """Context and continuation, or context, stop strings, limit and sampling, of every request."""
    task.build_all_requests(rank=0, world_size=1)
    found = []
    for instance in task.instances:
        context, what = instance.args
        if isinstance(what, dict):
            # A task that names no limit gets the 256 tokens of lm-eval's backends.
            what = (what["until"], what.get("max_gen_toks", 256), bool(what.get("do_sample")))
        found.append((instance.request_type, context, what))
    return found


@pytest.mark.parametrize(("benchmark", "source"), SOURCES)
def test_the_same_questions_are_asked(pair: Callable[..., Pair], benchmark: str, source: str) -> None:
    both = pair(benchmark, source)
    theirs = [request for task in both.theirs.values() for request in asked(task)]
    ours = asked(load_task(both.setting, both.data[benchmark]))
    if benchmark == "lambada":
        # There a log-likelihood task, here a choice of one.
        assert {kind for kind, *_ in theirs} == {"loglikelihood"}
    assert ours == theirs


@pytest.mark.parametrize(("source", "shots"), [("own", 2), ("own", 5), pytest.param("real", 5, marks=pytest.mark.real)])
def test_mmlus_worked_examples_are_the_same(pair: Callable[..., Pair], source: str, shots: int) -> None:
    both = pair("mmlu", source, shots)
    ours = asked(load_task(both.setting, both.data["mmlu"]))
    assert ours == [request for task in both.theirs.values() for request in asked(task)]
    assert ours[0][1].count("\nAnswer:") == shots + 1


CHOICES = [("m_arc", "acc_norm"), ("m_hellaswag", "acc_norm"), ("m_mmlu", "acc"), ("mmlu", "acc"), ("pubmedqa", "acc")]


@pytest.mark.parametrize("source", ["own", REAL])
@pytest.mark.parametrize(("benchmark", "metric"), CHOICES)
def test_choices_are_scored_the_same(pair: Callable[..., Pair], benchmark: str, metric: str, source: str) -> None:
    if source == "real" and benchmark not in stock.REAL:
        pytest.skip("no file of it is available")
    both = pair(benchmark, source)
    for turn in range(ROUNDS):
        lm = Scripted({}, turn)
        record = both.ours(lm)
        outcomes, values = both.stock_samples(lm, metric)
        assert list(record.items["outcome"]) == outcomes
        if len(values) > 1 and benchmark != "mmlu":
            assert record.summary["parts"] == pytest.approx(values)
            assert record.value == pytest.approx(sum(values.values()) / len(values))
        else:
            assert record.value == pytest.approx(sum(outcomes) / len(outcomes))
        if metric == "acc_norm":
            assert [json.loads(extra)["acc"] for extra in record.items["extra"]] == both.stock_samples(lm, "acc")[0]


GENERATED = [
    ("gsm8k", "exact_match", "flexible-extract"),
    ("triviaqa", "exact_match", "remove_whitespace"),
    ("coqa", "f1", "none"),
    ("ifeval", "prompt_level_strict_acc", "none"),
    ("math", "exact_match", "none"),
]


@pytest.mark.parametrize("source", ["own", REAL])
@pytest.mark.parametrize(("benchmark", "metric", "filtered"), GENERATED)
def test_generated_answers_are_scored_the_same(pair: Callable[..., Pair], benchmark: str, metric: str, filtered: str, source: str) -> None:
    both = pair(benchmark, source)
    answers = both.answers()
    most = max(map(len, answers.values()))
    seen = set()
    for turn in range(most if source == "own" else ROUNDS):
        lm = Scripted(answers, turn)
        record = both.ours(lm)
        outcomes, _ = both.stock_samples(lm, metric, filtered)
        assert list(record.items["outcome"]) == pytest.approx([float(outcome) for outcome in outcomes])
        seen |= {float(outcome) for outcome in outcomes}
    assert {0.0, 1.0} <= seen or benchmark == "coqa"


@pytest.mark.parametrize("source", ["own", REAL])
def test_gsm8ks_strict_match_is_the_same(pair: Callable[..., Pair], source: str) -> None:
    both = pair("gsm8k", source)
    answers = both.answers()
    for turn in range(14 if source == "own" else ROUNDS):
        lm = Scripted(answers, turn)
        strict = [json.loads(extra)["exact_match,strict-match"] for extra in both.ours(lm).items["extra"]]
        assert strict == both.stock_samples(lm, "exact_match", "strict-match")[0]


@pytest.mark.parametrize("source", ["own", REAL])
def test_translations_have_the_same_bleu(pair: Callable[..., Pair], source: str) -> None:
    both = pair("wmt14", source)
    answers = both.answers()
    for turn in range(7 if source == "own" else ROUNDS):
        lm = Scripted(answers, turn)
        assert both.ours(lm).value * 100 == pytest.approx(both.stock_samples(lm, "bleu")[1][""])


@pytest.mark.parametrize("source", ["own", REAL])
def test_lambada_has_the_same_accuracy_and_perplexity(pair: Callable[..., Pair], source: str) -> None:
    import math

    both = pair("lambada", source)
    for turn in range(ROUNDS):
        lm = Scripted({}, turn)
        record = both.ours(lm)
        outcomes, _ = both.stock_samples(lm, "acc")
        assert list(record.items["outcome"]) == outcomes
        logprobs = [json.loads(extra)["logprob"] for extra in record.items["extra"]]
        assert math.exp(-sum(logprobs) / len(logprobs)) == pytest.approx(both.stock_samples(lm, "perplexity")[1][""])


@pytest.mark.parametrize("source", ["own", REAL])
def test_squads_best_f1_is_the_official_scripts(pair: Callable[..., Pair], source: str) -> None:
    """lm-eval asks the network for the script; transformers has a copy of its functions."""
    from transformers.data.metrics import squad_metrics

    both = pair("squadv2", source)
    answers = both.answers()
    (task,) = both.theirs.values()
    for turn in range(7):
        lm = Scripted(answers, turn)
        record = both.ours(lm)
        asked(task)
        texts = lm.generate_until([i for i in task.instances if i.request_type == "generate_until"])
        silent = lm.loglikelihood([i for i in task.instances if i.request_type == "loglikelihood"])
        scores, probabilities, answerable = {}, {}, {}
        for doc, text, asked_silence in zip(task.eval_docs, texts, silent, strict=True):
            prediction, reference = task.process_results(doc, (text, asked_silence))["f1"]
            golds = [gold for gold in reference["answers"]["text"] if squad_metrics.normalize_answer(gold)] or [""]
            scores[doc["id"]] = max(squad_metrics.compute_f1(gold, prediction["prediction_text"].strip()) for gold in golds)
            probabilities[doc["id"]] = prediction["no_answer_probability"]
            answerable[doc["id"]] = bool(reference["answers"]["text"])
        predictions = {doc["id"]: text.strip() for doc, text in zip(task.eval_docs, texts, strict=True)}
        best, _ = squad_metrics.find_best_thresh(predictions, scores, probabilities, answerable)
        assert record.value * 100 == pytest.approx(best)


@pytest.mark.parametrize("source", ["own", REAL])
def test_math_verify_is_minerva_maths(pair: Callable[..., Pair], source: str) -> None:
    from lm_eval.tasks.minerva_math.utils import process_results as minerva

    from mergebench.evaluation import mathematics

    both = pair("math", source)
    rows = both.rows if source == "own" else both.rows[:6]
    for row in rows:
        for answer in ["", "zzqx", f"so \\boxed{{{row['answer']}}}", f"The answer is ${row['answer']}$", f"${row['answer']}+1$"]:
            ours = mathematics.process_results(row, [answer])["equivalent"]["math_verify"]
            assert ours == minerva({**row, "answer": row["answer"]}, [answer])["math_verify"], answer


@pytest.mark.parametrize(("benchmark", "source"), [pair for pair in SOURCES if "squadv2" not in getattr(pair, "values", pair)])
def test_the_result_file_has_lm_evals_tasks_keys_and_numbers(
    pair: Callable[..., Pair], benchmark: str, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `official.lm_eval` writes is what lm-eval reports of its own tasks, standard errors included."""
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")
    both = pair(benchmark, source)
    lm = Scripted(both.answers(), 1)
    record = both.ours(lm)
    written = official.write([Scored({**record.summary, "base": "b", "model": "m"}, record.items)])
    for task in both.theirs.values():
        name = str(task.config.task)
        # Hardly any bootstrap samples: errors of means are not bootstrapped.
        theirs = evaluate(lm, {"tasks": {name: task}, "groups": {}, "group_map": {}}, bootstrap_iters=2)
        reported = {key: value for key, value in theirs["results"][name].items() if "," in key}
        # WMT14's other metrics need the references, and its error is bootstrapped.
        left_out = {key for key in reported if key.split(",")[0].removesuffix("_stderr") in ("chrf", "ter")} | {"bleu_stderr,none"}
        ours = written["results"][name]
        for key in reported.keys() - left_out - {"perplexity_stderr,none"}:
            assert ours[key] == (reported[key] if isinstance(reported[key], str) else pytest.approx(reported[key])), key
        assert written["versions"][name] is not None
        assert written["n-samples"][name] == theirs["n-samples"][name]
        assert written["n-shot"][name] == theirs["n-shot"][name]
        higher = {metric: better for metric, better in theirs["higher_is_better"][name].items() if metric not in ("chrf", "ter")}
        assert written["higher_is_better"][name] == higher
