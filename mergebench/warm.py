"""Start local jobs without import time.

A job of the tiny twins computes for seconds, and importing torch, transformers and TRL takes as long again.
``mergebench warm -- COMMAND`` imports these libraries once in a server, runs the command with the server's
address in its environment, and each ``mergebench run STAGE`` below it becomes a fork of the server. The
modules of this package are imported by the fork, from the source that the run has locked. Where no server is
offered, as in a Slurm job, ``mergebench run`` does its work itself; the results are the same.

What the fork does not share with an ordinary job: Snakemake's ``benchmark`` files see only the client. The
cost records, which the tables use, are written by the fork itself.
"""

import contextlib
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ADDRESS = "MERGEBENCH_WARM"
ALLOCATION = "MERGEBENCH_WARM_ALLOCATION"
FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
LOST = 1


def offered() -> bool:
    """Whether a warm server's address is in the environment and its socket exists.

    A job in a Slurm allocation of its own inherits the address too, but its work belongs into that allocation, with
    its processors, memory and GPUs.
    """
    address, allocation = os.environ.get(ADDRESS), os.environ.get("SLURM_JOB_ID")
    if address is None or allocation not in (None, os.environ.get(ALLOCATION)):
        return False
    return Path(address).is_socket()


def delegate(arguments: Sequence[str]) -> int | None:
    """Let the server run ``mergebench ARGUMENTS`` with this process's streams.

    Returns the exit status, or None where the server is gone and the caller must do the work itself.
    """
    request = json.dumps({"arguments": list(arguments), "folder": os.getcwd(), "environment": dict(os.environ)}).encode()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.connect(os.environ[ADDRESS])
        except OSError:
            return None
        for number in FORWARDED:
            signal.signal(number, lambda caught, _: connection.send(bytes([caught])))
        socket.send_fds(connection, [len(request).to_bytes(8, "big")], [0, 1, 2])
        connection.sendall(request)
        answer = connection.recv(1)
    return answer[0] if answer else LOST


def run(command: Sequence[str]) -> int:
    """Run `command` while a server stands ready for its jobs; returns the command's exit status."""
    command = [word for i, word in enumerate(command) if i or word != "--"]
    if not command:
        print("mergebench warm: name a command, for example: mergebench warm -- snakemake --profile profiles/tiny", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="mergebench-") as folder:
        address = f"{folder}/warm"
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
            listener.bind(address)
            listener.listen(64)
            process = subprocess.Popen(command, env={**os.environ, ADDRESS: address, ALLOCATION: os.environ.get("SLURM_JOB_ID", "")})
            _import_libraries()
            return _Server(listener, process).serve()


def _import_libraries() -> None:
    """Import what the stages import, before the first fork. Importing starts no threads."""
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "MPLBACKEND": "Agg"}
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_EVALUATE_OFFLINE": "1"}
    import lm_eval.evaluator
    import lm_eval.tasks
    import matplotlib.pyplot
    import pandas
    import pyarrow.parquet
    import safetensors.torch
    import torch
    import torch._dynamo
    from transformers import AutoModelForCausalLM, AutoTokenizer, Gemma2ForCausalLM, LlamaForCausalLM
    from trl import GRPOTrainer, SFTTrainer

    del lm_eval, matplotlib, pandas, pyarrow, safetensors, torch
    del AutoModelForCausalLM, AutoTokenizer, Gemma2ForCausalLM, LlamaForCausalLM, GRPOTrainer, SFTTrainer


class _Server:
    """Accepts jobs, forks them, passes signals on and answers with exit statuses."""

    def __init__(self, listener: socket.socket, process: subprocess.Popen[bytes]) -> None:
        self.listener = listener
        self.process = process
        self.jobs: dict[int, socket.socket] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> int:
        """Serve until the command ends; its jobs end with it."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # the command gets Ctrl-C too, and decides
        signal.signal(signal.SIGTERM, lambda number, _: self.process.send_signal(number))
        while self.process.poll() is None:
            for key, _ in self.selector.select(timeout=0.05):
                if key.fileobj is self.listener:
                    self._start()
                else:
                    self._pass_on(key.data, key.fileobj)  # type: ignore[arg-type]
            self._reap()
        for pid in self.jobs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        return self.process.returncode

    def _start(self) -> None:
        connection, _ = self.listener.accept()
        try:
            header, streams, _, _ = socket.recv_fds(connection, 8, 3)
            length = int.from_bytes(header, "big")
            body = b""
            while len(body) < length:
                body += connection.recv(length - len(body))
            request = json.loads(body)
        except (OSError, ValueError):
            connection.close()
            return
        pid = os.fork()
        if pid == 0:
            self.listener.close()
            self.selector.close()
            _become(request, streams)
        for stream in streams:
            os.close(stream)
        self.jobs[pid] = connection
        self.selector.register(connection, selectors.EVENT_READ, pid)

    def _pass_on(self, pid: int, connection: socket.socket) -> None:
        """Pass a signal on to the job; if its client has been killed, kill the job too."""
        try:
            message = connection.recv(1)
        except OSError:
            message = b""
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, message[0] if message else signal.SIGKILL)
        if not message:
            self.selector.unregister(connection)

    def _reap(self) -> None:
        for pid in list(self.jobs):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if not ended:
                continue
            connection = self.jobs.pop(pid)
            code = os.waitstatus_to_exitcode(status)
            with contextlib.suppress(OSError, KeyError):
                self.selector.unregister(connection)
            with contextlib.suppress(OSError):
                connection.send(bytes([code if code >= 0 else 128 - code]))
            connection.close()


def _become(request: dict[str, Any], streams: Sequence[int]) -> None:
    """Turn a fork into the job: its streams, folder, environment and arguments. Never returns."""
    status = LOST
    try:
        for number, stream in enumerate(streams):
            os.dup2(stream, number)
        for number in FORWARDED:
            signal.signal(number, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.clear()
        os.environ.update(request["environment"])
        os.environ.pop(ADDRESS, None)
        os.chdir(request["folder"])
        sys.argv = ["mergebench", *request["arguments"]]
        import torch

        from mergebench.workflow import source

        if source.VARIABLE in os.environ:
            source.import_from(Path(os.environ[source.VARIABLE]))
        from mergebench import cli

        torch.set_num_threads(max(1, cli.parser().parse_args(request["arguments"]).threads))
        status = cli.main(request["arguments"])
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else LOST
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
