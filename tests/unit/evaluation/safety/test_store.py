"""Labels that outlive kills and other writers."""

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from mergebench.evaluation.safety.labels import Label, Request
from mergebench.evaluation.safety.store import LabelStore

JUDGE = {"name": "wildguard", "weights_digest": "1"}
YES, NO = Label(True, True, True, raw="yes"), Label(False, False, False, raw="no")
ONE, OTHER = Request("p", "one"), Request("p", "other")


def opened(path: Path, **change) -> LabelStore:
    return LabelStore(path / "labels.jsonl", {**JUDGE, **change})


def test_a_label_is_found_again_by_another_reader(tmp_path):
    store = opened(tmp_path)
    store.add({store.key(ONE): YES}, {"backend": "vllm"})
    again = opened(tmp_path)
    assert (again.get(again.key(ONE)), again.get(again.key(OTHER))) == (YES, None)
    assert again.engines([again.key(ONE), again.key(OTHER)]) == [{"backend": "vllm"}]


@pytest.mark.parametrize(
    "other", [Request("p", "one", "context"), Request("po", "ne"), Request("", "pone"), Request("one", "p"), Request("p", "one ")]
)
def test_other_texts_have_another_key(tmp_path, other):
    store = opened(tmp_path)
    assert store.key(other) != store.key(ONE)


@pytest.mark.parametrize("change", [{"weights_digest": "2"}, {"max_tokens": 1}])
def test_another_judge_finds_nothing(tmp_path, change):
    store = opened(tmp_path)
    store.add({store.key(ONE): YES}, {"backend": "vllm"})
    other = opened(tmp_path, **change)
    assert (other.get(other.key(ONE)), other.engines([other.key(ONE)])) == (None, [])


def test_labels_know_what_computed_them(tmp_path):
    store, last = opened(tmp_path), Request("q", "")
    for request, version in ((ONE, 1), (OTHER, 1), (last, 2)):
        store.add({store.key(request): YES}, {"version": version})
    again = opened(tmp_path)
    assert again.engines(map(again.key, (ONE, OTHER))) == [{"version": 1}]
    assert sorted(engine["version"] for engine in again.engines(map(again.key, (ONE, last)))) == [1, 2]
    assert sum("engine" in line for line in store.path.read_text().splitlines()) == 2


def test_wherever_a_kill_cut_the_file_whole_lines_count_and_the_next_ones_too(tmp_path):
    store = opened(tmp_path)
    store.add({store.key(ONE): YES})
    first = store.path.stat().st_size
    store.add({store.key(OTHER): NO})
    whole = store.path.read_bytes()
    third = Request("q", "third")
    for length in range(first, len(whole)):
        store.path.write_bytes(whole[:length])
        cut = opened(tmp_path)
        assert cut.get(cut.key(ONE)) == YES
        assert cut.get(cut.key(OTHER)) is None
        cut.add({cut.key(third): NO})
        assert opened(tmp_path).get(cut.key(third)) == NO


@pytest.mark.parametrize(
    "line",
    [
        "{}",
        "[]",
        "1",
        '"x"',
        "{",
        '{"key": 1}',
        '{"key": "k", "unknown": 1}',
        '{"engine": 1}',
        '{"by": null, "key": "k", "x": 1}',
        '{"by": "a", "engine": 1}',
        "\x00\x00",
    ],
)
def test_a_damaged_line_is_ignored(tmp_path, line):
    store = opened(tmp_path)
    store.add({store.key(ONE): YES})
    with store.path.open("a") as stream:
        stream.write(line + "\n")
    store.add({store.key(OTHER): NO})
    again = opened(tmp_path)
    assert (again.get(again.key(ONE)), again.get(again.key(OTHER))) == (YES, NO)


def test_of_two_labels_the_first_one_counts_for_both_writers(tmp_path):
    first, second = opened(tmp_path), opened(tmp_path)
    first.add({first.key(ONE): YES})
    second.add({second.key(ONE): NO})
    assert first.get(first.key(ONE)) == second.get(second.key(ONE)) == opened(tmp_path).get(first.key(ONE)) == YES


def _write(folder: Path, writer: int, count: int) -> None:
    store = opened(folder)
    for number in range(count):
        store.add({store.key(Request(str(writer), str(number))): Label(raw="x" * 9000), store.key(Request("shared", str(number))): NO})


def test_two_writers_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_write, args=(tmp_path, writer, 30)) for writer in range(2)]
    for process in writers:
        process.start()
    for process in writers:
        process.join()
    assert [process.exitcode for process in writers] == [0, 0]
    store = opened(tmp_path)
    keys = [store.key(Request(str(writer), str(number))) for writer in range(2) for number in range(30)]
    assert all(store.get(key) is not None for key in keys)
    for line in store.path.read_text().splitlines():
        json.loads(line)


def test_a_full_disk_loses_nothing_that_was_there(tmp_path):
    """A limit on the size of files stands for the disk; the write that does not fit is an error."""
    store = opened(tmp_path)
    store.add({store.key(ONE): YES})
    size = store.path.stat().st_size
    child = os.fork()
    if child == 0:
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 50, size + 50))
        try:
            store.add({store.key(OTHER): NO})
        except OSError:
            os._exit(7)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    again = opened(tmp_path)
    again.add({again.key(OTHER): NO})
    assert (again.get(again.key(ONE)), opened(tmp_path).get(again.key(OTHER))) == (YES, NO)


def test_texts_that_utf8_cannot_hold_have_keys(tmp_path):
    store = opened(tmp_path)
    odd = Request("\ud800", "\x00")
    store.add({store.key(odd): Label(raw="\udfff")})
    assert opened(tmp_path).get(store.key(odd)) == Label(raw="\udfff")
