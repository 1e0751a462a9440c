"""What vLLM cannot do is said in a sentence; an engine leaves nothing behind, closed or killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from mergebench.errors import MergebenchError
from mergebench.evaluation import backends
from mergebench.tiny.shipped import shipped

ROOT = Path(__file__).parents[2]
LLAMA = shipped("tiny-llama-strong")

BUSY = """
import sys
from pathlib import Path
from lm_eval.api.instance import Instance
from mergebench.evaluation import backends

lm = backends.load("vllm", Path(sys.argv[1]), dtype="float32")
print("ready", flush=True)
settings = {"until": [], "max_gen_toks": 200, "do_sample": True, "temperature": 2.0}
while True:
    lm.generate_until([Instance("generate_until", {}, (f"Question {n}", settings), 0, ("t", n, 1)) for n in range(200)])
"""

TWICE = """
import gc, sys, weakref
from pathlib import Path
from lm_eval.api.instance import Instance
from mergebench.evaluation import backends

answers = []
for _ in range(2):
    lm = backends.load("vllm", Path(sys.argv[1]), dtype="float32")
    [model] = lm.llm.apply_model(weakref.ref)
    answers.append(lm.generate_until([Instance("generate_until", {}, ("Q: one and one?\\nA:", {"max_gen_toks": 5}), 0, ("t", 0, 1))]))
    lm.close()
    gc.collect()
    assert model() is None, "the weights are still there"
print("same" if answers[0] == answers[1] else answers)
"""


@pytest.fixture(scope="module")
def on_cpu() -> None:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        pytest.skip("these limits are those of vLLM on a CPU")


@pytest.mark.usefixtures("on_cpu")
def test_bfloat16_on_a_cpu_is_refused():
    with pytest.raises(MergebenchError, match="vLLM on a CPU is used in float32 only"):
        backends.load("vllm", LLAMA, dtype="bfloat16")


@pytest.mark.usefixtures("on_cpu")
def test_small_heads_on_a_cpu_are_refused(tmp_path):
    folder = shutil.copytree(LLAMA, tmp_path / "small")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "head_dim": 16}))
    with pytest.raises(MergebenchError, match="have 16 dimensions; vLLM on a CPU needs at least 32"):
        backends.load("vllm", folder)


def test_a_folder_without_tokenizer_is_refused(tmp_path):
    folder = shutil.copytree(LLAMA, tmp_path / "bare", ignore=shutil.ignore_patterns("tokenizer*"))
    with pytest.raises(MergebenchError, match="has no tokenizer"):
        backends.load("vllm", folder)


def test_more_positions_than_the_model_has_are_refused():
    with pytest.raises(MergebenchError, match="max_length is 300; it must be from 2 to the 256 positions"):
        backends.load("vllm", LLAMA, max_length=300)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def members(session: int) -> list[int]:
    """Processes of a session."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_job_leaves_no_process(how):
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(LLAMA)], stdout=subprocess.PIPE, start_new_session=True, env=environment(), text=True, cwd=ROOT
    )
    try:
        assert process.stdout is not None
        assert any(line.strip() == "ready" for line in process.stdout)
        time.sleep(1)
        assert process.poll() is None
        os.kill(process.pid, how)
        process.wait(timeout=60)
        deadline = time.monotonic() + 20
        while members(process.pid) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert members(process.pid) == []
    finally:
        for left in members(process.pid):
            os.kill(left, signal.SIGKILL)


def test_a_closed_engine_is_gone_and_the_next_one_starts():
    done = subprocess.run(
        [sys.executable, "-c", TWICE, str(LLAMA)], capture_output=True, text=True, env=environment(), timeout=400, check=False, cwd=ROOT
    )
    assert done.stdout.strip().endswith("same"), done.stderr[-3000:]
