"""Protocols: they differ where the catalogue says so and nowhere else, and `released` asks what the authors' scripts ask."""

from pathlib import Path

import pytest

from mergebench import catalogue
from mergebench.errors import MergebenchError
from mergebench.evaluation.harness import Suite
from mergebench.evaluation.local_tasks import load_task
from mergebench.evaluation.settings import PROTOCOLS, BenchmarkSetting
from tests.stubs import GoldModel, RubbishModel
from tests.unit.evaluation.rows import ROWS

PAGE = Path(__file__).parents[3] / "docs/evaluation-protocols.md"
# What is scored otherwise by the judge's labels, and not by the task.
BY_LABELS = ("label that cannot be read",)
DIFFERENT = {name: entry["protocols"] for name, entry in catalogue.benchmarks().items() if "protocols" in entry}


def asked(rows, name, protocol, **settings):
    """Everything that a protocol may change: requests, sampling, scorer, rows."""
    task = load_task(BenchmarkSetting(name, protocol=protocol, **settings), rows / name / "rows.jsonl")
    task.build_all_requests(tokenizer_name="t")
    data = catalogue.datasets()[name]
    return {
        "requests": [instance.args for instance in task.instances],
        "samples": task.config.repeats,
        "scorer": getattr(task.config.process_results, "__name__", None),
        "headline": task.config.metadata["headline"],
        "timeout": task.config.metadata["timeout_seconds"],
        "rows": data.get("released", name) if protocol == "released" else name,
    }


@pytest.mark.parametrize("name", [name for name in catalogue.benchmarks() if name not in DIFFERENT])
def test_a_benchmark_without_an_entry_is_the_same_under_all(rows, name):
    corrected = asked(rows, name, "corrected")
    assert all(asked(rows, name, protocol) == corrected for protocol in PROTOCOLS)


@pytest.mark.parametrize("name", list(DIFFERENT))
@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_a_benchmark_with_an_entry_differs_exactly_where_it_says_so(rows, name, protocol):
    corrected = asked(rows, name, "corrected")
    stated = [d for d in DIFFERENT[name] if d["what"] not in BY_LABELS and not d[protocol].endswith("as corrected")]
    assert (asked(rows, name, protocol) != corrected) is bool(stated)


@pytest.mark.parametrize("name", list(DIFFERENT))
def test_entries_state_every_protocol(name):
    for difference in DIFFERENT[name]:
        assert set(difference) == {"what", *PROTOCOLS}
        assert all(isinstance(text, str) and text for text in difference.values())
        assert difference["released"] != difference["corrected"]


SAFETY = ("wildguardtest", "harmbench", "do_anything_now", "xstest", "wildjailbreak")


@pytest.mark.parametrize("name", SAFETY)
def test_released_safety_prompts_are_in_llama_3s_markers(rows, name):
    field = "adversarial" if "adversarial" in ROWS[name][0] and "vanilla" in ROWS[name][0] else "prompt"
    context, generation = asked(rows, name, "released")["requests"][0]
    assert context == (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n"
        + ROWS[name][0][field]
        + "<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"
    )
    assert generation["leading_bos"] == 2
    assert generation["stop_token_ids"] == ["<|eot_id|>"]
    assert generation.get("temperature", 0) == (1.0 if name == "xstest" else 0)
    assert generation["do_sample"] is (name == "xstest")


@pytest.mark.parametrize("name", SAFETY)
def test_answers_to_safety_prompts_are_deferred(rows, name):
    task = load_task(BenchmarkSetting(name), rows / name / "rows.jsonl")
    assert task.config.metadata["defer"] == "safety"


def test_the_context_of_a_behaviour_is_shown_only_when_corrected(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"id": "a", "prompt": "Summarise it.", "context": "A text.", "functional_category": "contextual", "semantic_category": "x"}\n'
    )
    shown = {}
    for protocol in PROTOCOLS:
        task = load_task(BenchmarkSetting("harmbench", protocol=protocol), path)
        shown[protocol] = task.context(task.eval_docs[0])
    assert shown["corrected"] == "A text.\n\n---\n\nSummarise it."
    assert shown["paper"] == "Summarise it."
    assert "A text." not in shown["released"]


@pytest.mark.parametrize(("name", "seconds"), [("humanevalplus", 20), ("mbppplus", 10)])
def test_released_programs_are_sampled_as_by_bigcode(rows, name, seconds):
    found = asked(rows, name, "released")
    generation = found["requests"][0][1]
    assert (found["samples"], found["timeout"]) == (10, seconds)
    assert {"do_sample": True, "temperature": 0.2, "top_p": 0.95, "max_total_toks": 512}.items() <= generation.items()
    assert asked(rows, name, "corrected")["samples"] == 1


def two_shot(text):
    """The prompt as bigcode-evaluation-harness writes it down: lines of one literal, continued by backslashes."""
    prompt = f"\nInstruction:\nconvert a list of integers into a single integer\
                   \nSolution:\nr = int(''.join(map(str, x)))\
                   \nInstruction:\nhow to convert a datetime string back to datetime object?\
                   \nSolution:\ndatetime.datetime.strptime(str, '%m/%d/%Y')\
                   \nInstruction:\n{text}\
                   \nSolution:\n"
    return "Answer the following instructions in one line of Python code:\n" + prompt


def test_conalas_released_prompt_is_bigcodes_and_the_corrected_one_has_no_stray_spaces(rows):
    intent = ROWS["conala"][0]["intent"]
    assert asked(rows, "conala", "released")["requests"][0][0] == two_shot(intent)
    assert asked(rows, "conala", "corrected")["requests"][0][0] == two_shot(intent).replace(" " * 19, "")
    assert asked(rows, "conala", "released", shots=0)["requests"][0][0] == f"{intent}\n"


def test_released_code_is_scored_with_what_follows_it():
    from mergebench.evaluation import answers

    doc, text = {"snippet": "sum(x)"}, "sum(x)\n\nInstruction:\nanother"
    assert answers.snippet(doc, [text])["bleu"]["outcome"] == 1.0
    assert answers.uncut_snippet(doc, [text])["bleu"]["outcome"] < 0.6


def test_released_validation_tunes_on_ifeval_itself():
    datasets = catalogue.datasets()
    assert datasets["ifeval_like"]["released"] == "ifeval"
    assert [name for name, entry in datasets.items() if "released" in entry] == ["ifeval_like"]


def test_released_prompts_go_through_no_chat_template():
    with pytest.raises(MergebenchError, match="no chat template; set apply_chat_template to false"):
        BenchmarkSetting("xstest", protocol="released", apply_chat_template=True)
    with pytest.raises(MergebenchError, match="protocol is 'official'; allowed: paper, released, corrected"):
        BenchmarkSetting("xstest", protocol="official")


def table():
    """The rows of the page's table, as the catalogue has them."""
    for name, differences in DIFFERENT.items():
        for number, difference in enumerate(differences):
            cells = [f"`{name}`" if number == 0 else "", difference["what"], *(difference[p] for p in ("corrected", "paper", "released"))]
            yield f"| {' | '.join(cells)} |"


def test_the_page_shows_every_difference():
    printed = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert printed[2:] == list(table())


class Published(GoldModel):
    """Right in the form that the authors' scripts can read."""

    def answer(self, task, doc):
        return f"It is ${doc['answer']}$." if task == "math" else super().answer(task, doc)


@pytest.mark.parametrize("protocol", ["paper", "released"])
def test_right_and_wrong_answers_reach_ceiling_and_floor_under_every_protocol(rows, protocol):
    names = [name for name in DIFFERENT if name not in ("humanevalplus", "mbppplus", "ifeval_like")]
    suite = Suite([BenchmarkSetting(name, protocol=protocol) for name in names], rows)
    right, wrong = suite.evaluate(Published()), suite.evaluate(RubbishModel())
    assert {name: record.value for name, record in right.items()} == pytest.approx(dict.fromkeys(names, 1.0))
    # Smoothing gives CoNaLa something for nothing.
    assert {name for name, record in wrong.items() if record.value > 0} == {"conala"}
    assert {record.summary["settings"]["protocol"] for record in right.values()} == {protocol}
    assert right["math"].summary["metric"] == ("exact_match" if protocol == "released" else "equivalent")
