"""The warm server runs stages as forks: same streams, status, signals; no server, no difference."""

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from mergebench import warm as warm_module

SPEC = json.dumps({"dataset": "gsm8k", "source": "tiny", "seed": 0, "limit": 3})


def warm(script: str, folder, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "mergebench", "warm", "--", sys.executable, "-c", script]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **options)


def stage(folder, spec: str = SPEC) -> str:
    """Python source that runs `mergebench run prepare` and prints its exit status."""
    words = [sys.executable, "-m", "mergebench", "run", "prepare", "--state", str(folder / "state"), "--spec", spec]
    words += ["--output", f"rows={folder}/rows.jsonl", f"manifest={folder}/manifest.json"]
    return f"import subprocess; print('status', subprocess.run({words!r}).returncode)"


def test_a_delegated_stage_writes_its_outputs_and_reports_its_status(tmp_path):
    done = warm(stage(tmp_path), tmp_path)
    assert "status 0" in done.stdout, done.stderr
    assert len((tmp_path / "rows.jsonl").read_text().splitlines()) == 3


def test_a_failing_stage_gives_its_sentence_on_stderr_and_its_status(tmp_path):
    done = warm(stage(tmp_path, json.dumps({"dataset": "gsm8k", "source": "moon", "seed": 0})), tmp_path)
    assert "status 1" in done.stdout
    assert "the source is 'moon'" in done.stderr


def test_the_commands_own_status_is_returned(tmp_path):
    assert warm("raise SystemExit(3)", tmp_path).returncode == 3


def test_killing_the_client_kills_the_job(tmp_path):
    """As `kill -9` of an ordinary job would."""
    listing = """
import os, signal, subprocess, sys, time
client = subprocess.Popen([sys.executable, "-c", '''
import os, sys
from mergebench import warm
os.chdir(sys.argv[1])
raise SystemExit(warm.delegate(["run", "prepare", "--spec", "{}", "--state", "fifo-state"]))
''', os.getcwd()])
pid = None
deadline = time.time() + 60
while pid is None and time.time() < deadline:
    if os.path.exists("job.pid"):
        pid = int(open("job.pid").read() or 0) or None
    time.sleep(0.02)
client.send_signal(signal.SIGKILL)
client.wait()
for _ in range(500):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        print("gone")
        break
    if open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z":
        print("gone")
        break
    time.sleep(0.02)
"""
    patch = tmp_path / "patched.py"
    patch.write_text(
        "import os, sys, time\n"
        "from mergebench import cli, warm\n"
        "def main(arguments=None):\n"
        "    open('job.pid', 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "    return 0\n"
        "cli.main = main\n"
        f"raise SystemExit(warm.run([sys.executable, '-c', {listing!r}]))\n"
    )
    done = subprocess.run([sys.executable, str(patch)], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert "gone" in done.stdout, done.stderr


def test_without_a_server_the_stage_runs_in_its_own_process(tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "MERGEBENCH_WARM"}
    done = subprocess.run([sys.executable, "-c", stage(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert "status 0" in done.stdout, done.stderr


def test_where_the_server_has_died_the_stage_runs_in_its_own_process(tmp_path):
    address = tmp_path / "warm"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as dead:
        dead.bind(str(address))
    environment = {**os.environ, "MERGEBENCH_WARM": str(address)}
    done = subprocess.run([sys.executable, "-c", stage(tmp_path)], env=environment, capture_output=True, text=True, check=False)
    assert "status 0" in done.stdout, done.stderr


@pytest.mark.parametrize("words", [[], ["--"]])
def test_no_command_is_an_error(words):
    done = subprocess.run([sys.executable, "-m", "mergebench", "warm", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "name a command" in done.stderr


def test_a_terminated_command_ends_the_server(tmp_path):
    process = subprocess.Popen([sys.executable, "-m", "mergebench", "warm", "--", "sleep", "60"], cwd=tmp_path, start_new_session=True)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGTERM)
    assert process.wait(timeout=60) != 0


@pytest.mark.parametrize(
    ("server", "job", "used"),
    [(None, None, True), ("7", "7", True), ("7", None, True), (None, "8", False), ("7", "8", False)],
    ids=["no-slurm", "same-allocation", "cleaned-environment", "job-of-its-own", "another-job"],
)
def test_a_job_in_an_allocation_of_its_own_does_its_work_there(tmp_path, monkeypatch, server, job, used):
    """The server's processors and memory belong to another allocation, or to none."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "warm"))
        monkeypatch.setenv(warm_module.ADDRESS, str(tmp_path / "warm"))
        monkeypatch.setenv(warm_module.ALLOCATION, server or "")
        monkeypatch.delenv("SLURM_JOB_ID", raising=False)
        if job is not None:
            monkeypatch.setenv("SLURM_JOB_ID", job)
        assert warm_module.offered() is used
