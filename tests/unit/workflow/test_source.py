"""The source of a run is copied once per content, and kept for as long as a process uses it."""

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mergebench.workflow import lock, source

ROOT = Path(__file__).parents[3]


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small package and its Snakefile, with `source` taken from it; the current folder is elsewhere."""
    files = {"Snakefile": "", "rules/a.smk": "", "envs/cpu.yaml": "", "mergebench/__init__.py": "", "mergebench/data.yaml": "x: 1"}
    for name, content in {**files, "mergebench/__pycache__/a.pyc": "c", "unrelated.txt": "u"}.items():
        path = tmp_path / "checkout" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    monkeypatch.setattr(source, "PACKAGE_ROOT", tmp_path / "checkout/mergebench")
    monkeypatch.setattr(source, "_HELD", [])
    return tmp_path / "checkout"


def contents(copy: Path) -> set[str]:
    return {path.relative_to(copy).as_posix() for path in copy.rglob("*") if path.is_file()} - {source.USED}


def test_the_copy_holds_package_rules_and_environments_and_nothing_else(checkout):
    copy = source.lock(checkout / "Snakefile")
    assert contents(copy) == {"Snakefile", "rules/a.smk", "envs/cpu.yaml", "mergebench/__init__.py", "mergebench/data.yaml"}


def test_the_same_content_is_copied_once_whatever_its_times(checkout):
    first = source.lock(checkout / "Snakefile")
    inode = (first / "Snakefile").stat().st_ino
    os.utime(checkout / "mergebench/data.yaml", (0, 0))
    assert source.lock(checkout / "Snakefile") == first
    assert (first / "Snakefile").stat().st_ino == inode


@pytest.mark.parametrize("name", ["Snakefile", "rules/a.smk", "envs/cpu.yaml", "mergebench/data.yaml", "mergebench/new.py"])
def test_every_edit_gives_another_copy(checkout, name):
    first = source.lock(checkout / "Snakefile")
    (checkout / name).write_text("edited")
    assert source.lock(checkout / "Snakefile") != first


def test_a_copy_lives_as_long_as_a_process_uses_it(checkout):
    first = source.lock(checkout / "Snakefile")
    (checkout / "mergebench/data.yaml").write_text("x: 2")
    second = source.lock(checkout / "Snakefile")
    assert first.is_dir(), "this process still holds the first"
    for stream in source._HELD:
        stream.close()
    source.lock(checkout / "Snakefile")
    assert not first.exists()
    assert second.is_dir()


def test_another_process_keeps_its_copy_too(checkout):
    first = source.lock(checkout / "Snakefile")
    source._HELD.pop().close()
    with (first / source.USED).open("a+") as other:
        fcntl.flock(other, fcntl.LOCK_SH)
        (checkout / "Snakefile").write_text("edited")
        source.lock(checkout / "Snakefile")
        assert first.is_dir()


def test_an_interrupted_copy_is_not_taken_for_a_whole_one(checkout, monkeypatch):
    def full(*_):
        raise OSError("no space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(source.shutil, "copy2", full)
        with pytest.raises(OSError, match="no space"):
            source.lock(checkout / "Snakefile")
    copy = source.lock(checkout / "Snakefile")
    assert "rules/a.smk" in contents(copy)
    assert list(copy.parent.glob(".source-*")) == []


def run(code: str, folder: Path, **environment: str) -> str:
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


ENTER = f"from mergebench.workflow import source; source.enter({str(ROOT / 'Snakefile')!r}, main=%s, arguments=%s)\n"
WHERE = "import mergebench.fingerprint as f; print(f.ROOT)\n"
CHILD = "import subprocess, sys; print(subprocess.run([sys.executable, '-c', %r], capture_output=True, text=True).stdout, end='')"


def test_the_main_process_and_its_children_import_from_the_copy(tmp_path):
    printed = run(ENTER % (True, []) + WHERE + CHILD % WHERE, tmp_path).splitlines()
    copy = next((tmp_path / ".snakemake/mergebench").glob("source-*"))
    assert printed == [str(copy / "mergebench")] * 2


def test_a_job_imports_from_the_copy_even_where_the_checkout_comes_first(tmp_path):
    copy = run(ENTER % (True, []) + f"import os; print(os.environ[{source.VARIABLE!r}])", tmp_path)
    found = run("import sys; sys.path.insert(0, sys.argv[0])\n" + ENTER % (False, []) + WHERE, tmp_path, **{source.VARIABLE: copy})
    assert found == f"{copy}/mergebench"


def test_a_command_that_only_asks_copies_nothing(tmp_path):
    assert run(ENTER % (True, ["-n"]) + WHERE, tmp_path) == str(ROOT / "mergebench")
    assert not (tmp_path / ".snakemake").exists()


def test_a_job_whose_copy_is_gone_says_so_in_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setenv(source.VARIABLE, str(tmp_path / "source-0"))
    with pytest.raises(SystemExit, match=r"is gone, as after the end of the run .* start snakemake again\.$"):
        source.enter("Snakefile", main=False, arguments=[])


def test_a_copy_that_cannot_be_made_ends_the_run_in_a_sentence(checkout, monkeypatch):
    def full(*_):
        raise OSError("No space left on device")

    monkeypatch.setattr(source.shutil, "copy2", full)
    with pytest.raises(SystemExit, match=r"cannot be copied; free space there \(No space left on device\)"):
        source.enter(str(checkout / "Snakefile"), main=True, arguments=[])


def test_the_copy_has_the_fingerprints_of_the_original(tmp_path):
    code = "from mergebench.fingerprint import fingerprint; print(fingerprint('mergebench.merging.run', 'mergebench.training.run'))\n"
    assert run(ENTER % (True, []) + code, tmp_path) == run(code, tmp_path)


def test_the_lock_asks_the_same_question():
    assert lock.only_asks is source.only_asks
