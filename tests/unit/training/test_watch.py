"""The log that a user reads: means over intervals, the same wherever a run was interrupted."""

import json
from types import SimpleNamespace

import pytest

from mergebench.errors import MergebenchError
from mergebench.training.watch import WINDOW, Watch, by_interval, cut_log, risen, write_log


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


@pytest.mark.parametrize(
    ("losses", "rise"),
    [
        ([], 0),
        ([9.0] * (2 * WINDOW - 1), 0),
        ([1.0] * WINDOW + [4.0] * WINDOW, 3),
        ([4.0] * WINDOW + [1.0] * WINDOW, -3),
        ([4.0] * WINDOW + [1.0] * WINDOW + [2.0] * WINDOW, 1),
    ],
)
def test_a_rise_is_that_over_the_lowest_window_before(losses, rise):
    assert risen(losses) == rise


def watched(tmp_path, losses, start=0, **options):
    """Steps of a run from `start` on, as a trainer reports them."""
    said = []
    watch = Watch("sft step", lambda *values, **rest: said.append((values, rest)), log=tmp_path / "live.jsonl", **options)
    state = SimpleNamespace(global_step=start, max_steps=99, is_world_process_zero=True, log_history=[])
    watch.on_train_begin(None, state, None)
    for loss in losses:
        state.global_step += 1
        watch.on_step_end(None, state, None)
        state.log_history.append({"step": state.global_step, "loss": loss})
        watch.on_log(None, state, None, logs=state.log_history[-1])
    return said


def live(tmp_path):
    return [json.loads(line) for line in (tmp_path / "live.jsonl").read_text().splitlines()]


def test_a_diverging_run_stops_with_what_to_change(tmp_path):
    with pytest.raises(MergebenchError, match=r"sft step 40: the loss diverges: .* 3.00 above .* 2 of divergence; lower learning_rate"):
        watched(tmp_path, [1.0] * WINDOW + [4.0] * WINDOW + [5.0], divergence=2.0)


def test_a_loss_that_jumps_once_does_not_stop_a_run(tmp_path):
    watched(tmp_path, [1.0] * WINDOW + [30.0] + [1.0] * WINDOW, divergence=2.0)


@pytest.mark.parametrize("loss", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_a_run(tmp_path, loss):
    with pytest.raises(MergebenchError, match=r"the loss became \w+ by step 2"):
        watched(tmp_path, [1.0, loss])


def test_losses_can_be_read_while_training(tmp_path):
    said = watched(tmp_path, [2.0, 1.0], tokens=[100, 100])
    assert [(line["step"], line["loss"]) for line in live(tmp_path)] == [(1, 2.0), (2, 1.0)]
    assert all(line["tokens_per_second"] > 0 for line in live(tmp_path))
    assert "tokens/s" in said[-1][0][2]


def test_a_resumed_run_takes_out_the_lines_of_steps_that_it_does_again(tmp_path):
    watched(tmp_path, [5.0, 4.0, 3.0])
    with (tmp_path / "live.jsonl").open("a") as stream:
        stream.write('{"step": 4, "lo')
    said = watched(tmp_path, [3.5], start=2)
    assert [(line["step"], line["loss"]) for line in live(tmp_path)] == [(1, 5.0), (2, 4.0), (3, 3.5)]
    assert said[-1][1] == {"before": 2}


def test_cutting_a_log_that_is_not_there_makes_room_for_it(tmp_path):
    cut_log(tmp_path / "new/live.jsonl", 3)
    assert (tmp_path / "new").is_dir()
