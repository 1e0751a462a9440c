"""Tokenised training sets on disk: the same rows as in memory, complete or absent, whatever interrupts them."""

import fcntl
import json
import multiprocessing
import os
import pickle
import shutil
import time
from pathlib import Path

import numpy as np
import pytest

from mergebench.artifacts import Job, execute, read_json, sha256_file
from mergebench.data.lines import Span, spans
from mergebench.errors import MergebenchError
from mergebench.training.examples import encode
from mergebench.training.models import load_tokenizer
from mergebench.training.shards import run as tokenise
from mergebench.training.shards.card import best_fit_packs
from mergebench.training.shards.store import open_tokens
from mergebench.training.templates import use_template
from tests.unit.training.pico import pico_tokenizer, sums, words, write_rows

LIMIT = 96
HOSTILE = [
    {"id": "fills", "prompt": "a" * 200, "response": "b"},
    {"id": "cut", "prompt": "1+1=?", "response": "2" * 200},
    {"id": "begins", "prompt": "say <bos> twice", "response": "no"},
    {"id": "ends", "prompt": "say it", "response": "a <eos> inside"},
    {"id": "lines", "prompt": "one\r\ntwo\u2028three", "response": "four\r\n"},
    {"id": "none", "prompt": "None", "response": "None"},
    {"id": "имя", "prompt": "a name", "response": "that is not ascii"},
    {"id": "input", "prompt": "add", "input": "1 1", "response": "2"},
]
ROWS = [*sums(40), *HOSTILE, *words(30)]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("base") / "weights"
    pico_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_rows(tmp_path_factory.mktemp("data") / "train_math", ROWS)


def tokens_job(out: Path, data: Path, weights: Path, *, threads: int = 1, **spec) -> Job:
    outputs = {"shards": out / "shards", "card": out / "card.json", "manifest": out / "manifest.json"}
    inputs = {"data": data, "weights": weights} | ({"hits": spec.pop("hits")} if "hits" in spec else {})
    given = {"training_set": "train_math", "tokenizer": "pico", "template": "alpaca_short", "max_length": LIMIT, "shard_rows": 16}
    return Job("tokenise", given | {"batch_size": 8} | spec, inputs, outputs, out.parent / f"{out.name}-state", threads=threads)


@pytest.fixture(scope="module")
def made(tmp_path_factory, data, weights) -> Path:
    """The tokens of `ROWS`."""
    out = tmp_path_factory.mktemp("tokens") / "one"
    execute(tokenise, tokens_job(out, data, weights))
    return out


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def test_rows_are_those_that_training_would_encode_in_memory(made, weights):
    tokenizer = use_template(load_tokenizer(weights), "alpaca_short")
    assert list(open_tokens(made / "manifest.json")) == encode(tokenizer, ROWS, LIMIT)


def test_lengths_prompts_and_places_agree(made):
    tokens = open_tokens(made / "manifest.json")
    assert len(tokens) == len(ROWS) - 2 == len(tokens.lengths) == len(tokens.prompt_lengths)
    for index in (0, 15, 16, 17, len(tokens) - 1):
        example = tokens[index]
        assert len(example.input_ids) == tokens.lengths[index]
        assert example.labels.count(-100) == tokens.prompt_lengths[index]
    assert tokens[-1] == tokens[len(tokens) - 1]
    assert tokens[14:18] == [tokens[i] for i in range(14, 18)]
    with pytest.raises(IndexError):
        tokens[len(tokens)]


def test_what_became_of_every_row_is_on_the_card(made):
    card, tokens = read_json(made / "card.json"), open_tokens(made / "manifest.json")
    assert card["rows"] == {
        "in": len(ROWS),
        "out": len(ROWS) - 2,
        "dropped": {"prompt fills the context": 1, "special tokens in the prompt": 1},
    }
    assert card["responses_cut"]["rows"] == 1
    assert card["tokens"] == tokens.lengths.sum() == sum(len(example.input_ids) for example in tokens)
    assert card["response_tokens"] == sum(example.response_tokens for example in tokens)
    assert card["lengths"]["sample"]["max"] == tokens.lengths.max() == LIMIT
    assert card["packing"]["steps_per_epoch"]["samples"] == -(-len(tokens) // 8)
    assert {row["id"] for row in ROWS} - {example.id for example in tokens} == {"fills", "begins"}


def test_only_whole_responses_end_and_none_ends_twice(made):
    eos = pico_tokenizer().eos_token_id
    for example in open_tokens(made / "manifest.json"):
        assert example.input_ids.count(eos) == (0 if example.id == "cut" else 1)


def test_the_bytes_do_not_depend_on_the_number_of_processes(made, tmp_path, data, weights):
    execute(tokenise, tokens_job(tmp_path / "three", data, weights, threads=3))
    assert content(tmp_path / "three") == content(made)


def test_a_killed_job_goes_on_behind_its_finished_shards(made, tmp_path, data, weights, monkeypatch):
    job, wrote = tokens_job(tmp_path / "killed", data, weights), []
    real = tokenise.write_shard

    def failing(path, span, *rest):
        if len(wrote) == 3:
            raise KeyboardInterrupt
        wrote.append(span.number)
        return real(path, span, *rest)

    monkeypatch.setattr(tokenise, "write_shard", failing)
    with pytest.raises(KeyboardInterrupt):
        execute(tokenise, job)
    assert not (tmp_path / "killed" / "manifest.json").exists()
    monkeypatch.setattr(tokenise, "write_shard", lambda path, span, *rest: wrote.append(span.number) or real(path, span, *rest))
    execute(tokenise, tokens_job(tmp_path / "killed", data, weights))
    assert wrote == list(range(len(spans(data.with_name("train.jsonl"), 16))))
    assert content(tmp_path / "killed") == content(made)


def test_a_job_killed_outright_leaves_no_process_that_holds_its_lease(made, tmp_path, data, weights, monkeypatch):
    real = tokenise.write_shard

    def slow(*given):
        time.sleep(0.2)
        return real(*given)

    monkeypatch.setattr(tokenise, "write_shard", slow)
    out = tmp_path / "killed"
    process = multiprocessing.get_context("fork").Process(target=execute, args=(tokenise, tokens_job(out, data, weights, threads=2)))
    process.start()
    while not list((tmp_path / "killed-state").glob("shards-*/1")):
        assert process.is_alive()
        time.sleep(0.01)
    process.kill()
    process.join()
    with (tmp_path / "killed-state" / "lease").open() as stream:
        for _ in range(200):  # the kernel ends the workers soon after
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.05)
        else:
            pytest.fail("a worker outlived its job")
    monkeypatch.undo()
    execute(tokenise, tokens_job(out, data, weights, threads=2))
    assert content(out) == content(made)


def test_shards_of_other_rows_are_not_gone_on_with(tmp_path, data, weights, monkeypatch):
    own = write_rows(tmp_path / "train_math", sums(40))
    job = tokens_job(tmp_path / "out", own, weights)
    monkeypatch.setattr(tokenise, "packing_card", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        execute(tokenise, job)
    monkeypatch.undo()
    other = words(40)
    own.with_name("train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in other))
    own.write_text('{"files": {}, "changed": true}')
    execute(tokenise, tokens_job(tmp_path / "out", own, weights))
    assert [example.id for example in open_tokens(tmp_path / "out/manifest.json")] == [row["id"] for row in other]


def test_contaminated_rows_are_left_out(tmp_path, data, weights):
    hits = tmp_path / "hits.jsonl"
    hits.write_text('{"id": "sum-0"}\n{"id": "word-3"}\n')
    execute(tokenise, tokens_job(tmp_path / "clean", data, weights, hits=hits))
    tokens = open_tokens(tmp_path / "clean" / "manifest.json")
    assert not {"sum-0", "word-3"} & {example.id for example in tokens}
    assert tokens.facts["dropped"]["overlaps a benchmark"] == 2


def test_tokens_travel_to_the_workers_of_a_data_loader(made):
    tokens = open_tokens(made / "manifest.json")
    assert pickle.loads(pickle.dumps(tokens))[20] == tokens[20]


def test_tokens_of_another_tokenizer_template_or_length_are_refused(made, weights):
    tokens, tokenizer = open_tokens(made / "manifest.json"), load_tokenizer(weights)
    tokens.check(tokenizer, "alpaca_short", LIMIT)
    with pytest.raises(MergebenchError, match="has template alpaca_short and max_length 96; training wants alpaca and 96"):
        tokens.check(tokenizer, "alpaca", LIMIT)
    tokenizer.add_tokens(["another"])
    with pytest.raises(MergebenchError, match="made with another tokenizer"):
        tokens.check(tokenizer, "alpaca_short", LIMIT)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda out: os.truncate(out / "shards/tokens-00002.npy", 300), "shard 2 in .* cannot be read"),
        (lambda out: (out / "shards/offsets-00001.npy").unlink(), "shard 1 in .* cannot be read"),
        (lambda out: np.save(out / "shards/prompts-00000.npy", np.zeros(3, dtype=np.int32)), "rows, manifest.json says"),
    ],
    ids=["truncated", "missing", "exchanged"],
)
def test_damaged_shards_are_refused(tmp_path, made, damage, message):
    shutil.copytree(made, tmp_path / "copy")
    damage(tmp_path / "copy")
    with pytest.raises(MergebenchError, match=message):
        open_tokens(tmp_path / "copy" / "manifest.json")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: not valid JSON"),
        ("[1]", "line 3: a list, expected an object"),
        ('{"id": "x", "prompt": null, "response": "r"}', "line 3: prompt is missing or not a text"),
        ('{"id": "x", "prompt": "p", "response": NaN}', "line 3: response is missing or not a text"),
    ],
)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_broken_line_is_named(tmp_path, weights, line, message, threads):
    manifest = write_rows(tmp_path / "train_math", sums(2))
    with manifest.with_name("train.jsonl").open("a") as stream:
        stream.write(line + "\n")
    with pytest.raises(MergebenchError, match=message):
        execute(tokenise, tokens_job(tmp_path / "out", manifest, weights, threads=threads, shard_rows=2))


def test_a_shard_whose_rows_are_all_dropped_is_empty(tmp_path, weights):
    manifest = write_rows(tmp_path / "train_math", [HOSTILE[0] | {"id": f"fills-{i}"} for i in range(4)] + sums(3))
    execute(tokenise, tokens_job(tmp_path / "out", manifest, weights, shard_rows=2))
    tokens = open_tokens(tmp_path / "out/manifest.json")
    assert [example.id for example in tokens] == ["sum-0", "sum-1", "sum-2"]
    assert len(tokens.lengths) == 3


def test_a_set_without_a_usable_row_is_refused(tmp_path, weights):
    manifest = write_rows(tmp_path / "train_math", [HOSTILE[0], HOSTILE[2]])
    with pytest.raises(MergebenchError, match=r"none of the 2 rows of train_math .*raise max_length"):
        execute(tokenise, tokens_job(tmp_path / "out", manifest, weights))


def test_spans_cover_the_file_line_by_line(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes("один\n\u2028two\nthree\nfour\nfive".encode())
    found = spans(path, 2)
    whole = path.read_bytes()
    assert [whole[span.start : span.stop].decode() for span in found] == ["один\n\u2028two\n", "three\nfour\n", "five"]
    assert [span.line for span in found] == [1, 3, 5]
    assert all(isinstance(span, Span) for span in found)


def naive_packs(lengths: list[int], capacity: int) -> int:
    rooms: list[int] = []
    for length in sorted(lengths, reverse=True):
        fitting = [room for room in rooms if room >= length]
        if fitting:
            rooms.remove(min(fitting))
        rooms.append((min(fitting) if fitting else capacity) - length)
    return len(rooms)


@pytest.mark.parametrize("seed", range(5))
def test_packs_are_those_of_best_fit_decreasing(seed):
    rng = np.random.default_rng(seed)
    capacity = int(rng.integers(20, 400))
    lengths = rng.integers(1, capacity + 1, size=300)
    assert best_fit_packs(lengths, capacity) == naive_packs(lengths.tolist(), capacity)
