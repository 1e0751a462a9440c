"""The log that a user reads: means over intervals, the same wherever a run was interrupted."""

import json

from mergebench.training.watch import by_interval, write_log


def history(steps):
    return [{"step": s, "loss": float(s), "learning_rate": s / 10, "total_flos": 1.0} for s in steps] + [{"train_runtime": 3.0}]


def test_a_line_has_the_means_of_its_steps_and_the_last_rate():
    assert by_interval(history(range(1, 5)), 2) == [
        {"step": 2, "loss": 1.5, "learning_rate": 0.2},
        {"step": 4, "loss": 3.5, "learning_rate": 0.4},
    ]


def test_the_steps_after_the_last_whole_interval_have_a_line():
    assert [line["step"] for line in by_interval(history(range(1, 6)), 2)] == [2, 4, 5]
    assert [line["step"] for line in by_interval(history([1]), 10)] == [1]


def test_a_value_that_some_steps_lack_is_the_mean_of_the_others():
    entries = history([1, 2, 3])
    entries[1]["reward"] = 0.5
    assert by_interval(entries, 3)[0]["reward"] == 0.5


def test_lines_are_json(tmp_path):
    lines = by_interval(history([1, 2]), 1)
    write_log(lines, tmp_path / "log.jsonl")
    assert [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()] == lines
