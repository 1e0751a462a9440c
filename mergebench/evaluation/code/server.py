"""The warm process inside a sandbox: it imports numpy once and forks a confined child for each program.

It runs only what this package wrote; the child runs the model's program (`candidate`) or the tests (`examiner`), never both.
Orders come through standard input, which is a socket: a message, and with it the descriptor of the child's channel to the
other side. The standard library alone, besides numpy, so that nothing else of the machine need be visible here.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import Any

from mergebench.evaluation.code import candidate, confinement, examiner

ROLES: dict[str, Callable[[dict[str, Any], int, int], None]] = {"candidate": candidate.run, "examiner": examiner.run}
REPORT_BYTES = 4096
MAX_THREADS = 64
MAX_FILES = 10_000
LOOK_SECONDS = 0.05
CHANNEL, REPORT = 3, 4
FORBIDDEN_FILE = "/etc/passwd"


class Control:
    """Messages of the process that gives the orders, each with or without a descriptor."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection

    def send(self, message: dict[str, Any], descriptor: int | None = None) -> None:
        """Write a message."""
        data = json.dumps(message).encode()
        header = struct.pack(">I", len(data))
        if descriptor is None:
            self.connection.sendall(header + data)
        else:
            socket.send_fds(self.connection, [header], [descriptor])
            self.connection.sendall(data)

    def receive(self, seconds: float | None = None) -> tuple[dict[str, Any], int | None]:
        """Read a message and the descriptor that came with it.

        Raises:
            EOFError: the other side has ended.
            TimeoutError: nothing came within `seconds`.
        """
        self.connection.settimeout(seconds)
        header, descriptors, _, _ = socket.recv_fds(self.connection, 4, 1)
        header += self._exactly(4 - len(header)) if header else b""
        if not header:
            raise EOFError("the other side has ended")
        message = json.loads(self._exactly(struct.unpack(">I", header)[0]))
        return message, descriptors[0] if descriptors else None

    def _exactly(self, count: int) -> bytes:
        parts = []
        while count:
            part = self.connection.recv(min(count, 1 << 20))
            if not part:
                raise EOFError("the other side has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


def main(control: Control, setting: dict[str, Any]) -> None:
    """Set up, say so, and serve until the orders end.

    Args:
        control: where orders come from.
        setting: `role`, `namespaces`, `landlock`, `seccomp`, `tested` (whether confinement must be proven first),
            `scratch_bytes` and `readable`.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError):
        import numpy  # noqa: F401  (children inherit it)
    examiner.prepare()
    root = tempfile.mkdtemp(prefix="mergebench-programs-")
    try:
        confinement.adopt_orphans()
        if setting["namespaces"]:
            confinement.enter_namespaces(root, setting["scratch_bytes"])
        if setting["tested"]:
            _prove(root, setting)
    except OSError as error:
        control.send({"error": str(error)})
        _remove(root)
        return
    control.send({"ready": True})
    gc.collect()
    gc.freeze()
    try:
        while True:
            order, descriptor = control.receive()
            if order["order"] == "run" and descriptor is not None:
                control.send(_run(order, descriptor, root, setting, control))
    except (EOFError, ConnectionError):
        pass
    finally:
        _remove(root)


def _remove(root: str) -> None:
    with contextlib.suppress(OSError):
        remove_below(root)
    confinement.unmount(root)
    with contextlib.suppress(OSError):
        os.rmdir(root)


def _prove(root: str, setting: dict[str, Any]) -> None:
    """Confine a throw-away child and have it try what must not work.

    Raises:
        OSError: it worked.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        message = b"the confined process died"
        try:
            _confine(root, setting, confinement.Limits(cpu_seconds=5, memory_bytes=4 << 30))
            message = _reached().encode()
        except BaseException as error:
            message = f"{type(error).__name__}: {error}".encode()
        finally:
            os.write(writer, message or b"-")
            os._exit(0)
    os.close(writer)
    os.waitpid(child, 0)
    answer = os.read(reader, REPORT_BYTES).decode()
    os.close(reader)
    if answer != "-":
        raise OSError(answer or "the confined process died")


def _reached() -> str:
    """What a confined process could reach although it must not; empty if nothing."""
    with contextlib.suppress(OSError), socket.socket() as probe:
        probe.settimeout(1)
        try:
            probe.connect(("127.0.0.1", 9))
        except ConnectionRefusedError:
            return "the network of the machine is within reach"
    with contextlib.suppress(OSError), open(FORBIDDEN_FILE):
        return f"{FORBIDDEN_FILE} is within reach"
    return ""


def _confine(folder: str | None, setting: dict[str, Any], limits: confinement.Limits) -> None:
    if not setting["seccomp"]:
        # The limit counts the user's processes on the whole machine, and root is exempt.
        confinement.limit_processes(sum(threads for _, _, threads in _processes()) + MAX_THREADS)
    confinement.confine(limits, folder=folder, readable=setting["readable"], landlock=setting["landlock"], seccomp=setting["seccomp"])


def _run(order: dict[str, Any], channel: int, root: str, setting: dict[str, Any], control: Control) -> dict[str, Any]:
    """Run one program to its end, to the next order or to a limit; nothing of it is left when this returns."""
    compiled = examiner.compiled(order) if setting["role"] == "examiner" else None
    folder = tempfile.mkdtemp(dir=root)
    report, report_to = os.pipe()
    child = os.fork()
    if child == 0:
        _child(order | {"compiled": compiled}, channel, report_to, folder, setting)
    os.close(channel)
    os.close(report_to)
    excess = _watch(child, folder, setting, control)
    _end(child)
    remove_below(folder)
    os.rmdir(folder)
    told = _drain(report)
    os.close(report)
    return {"report": told, "excess": excess}


def _child(order: dict[str, Any], channel: int, report: int, folder: str, setting: dict[str, Any]) -> None:
    """Never returns."""
    try:
        os.setsid()
        confinement.die_with_parent()
        # Past the places that the two descriptors move to, whichever they have now.
        held = [os.dup2(each, 10 + i) for i, each in enumerate((os.dup(channel), os.dup(report)))]
        null = os.open(os.devnull, os.O_RDWR)
        for target, source in ((0, null), (1, null), (2, null), (CHANNEL, held[0]), (REPORT, held[1])):
            os.dup2(source, target)
        _close_from(5)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(HOME=folder, TMPDIR=folder, OPENBLAS_NUM_THREADS="1")
        tempfile.tempdir = folder
        examined = setting["role"] == "examiner"
        limits = confinement.Limits(cpu_seconds=int(order["timeout"]) + 1, memory_bytes=int(order["memory_bytes"]))
        _confine(None if examined else folder, setting, limits)
        if not examined:
            os.close(REPORT)  # the program has nothing to report; its answers go through the channel
        ROLES[setting["role"]](order, CHANNEL, REPORT)
    except BaseException:
        os._exit(1)
    os._exit(0)


def _close_from(start: int) -> None:
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    os.closerange(start, min(soft, 65536) if soft > 0 else 65536)


def _watch(child: int, folder: str, setting: dict[str, Any], control: Control) -> str:
    """Wait until the child ends, the next order comes (which stops it) or it exceeds a limit that the kernel does not keep."""
    ended = _exit_handle(child)
    poll = select.poll()
    poll.register(control.connection, select.POLLIN)
    if ended is not None:
        poll.register(ended, select.POLLIN)
    try:
        while True:
            ready = poll.poll(LOOK_SECONDS * 1000 if ended is not None else 5)
            if any(descriptor == control.connection.fileno() for descriptor, _ in ready):
                with contextlib.suppress(EOFError, ConnectionError):
                    control.receive()
                return ""
            if ready or (ended is None and os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None):
                return ""
            if excess := _excess(child, folder, setting["scratch_bytes"]):
                return excess
    finally:
        if ended is not None:
            os.close(ended)


def _exit_handle(child: int) -> int | None:
    try:
        return os.pidfd_open(child)
    except (OSError, AttributeError):
        return None


def _excess(child: int, folder: str, scratch_bytes: int) -> str:
    with contextlib.suppress(OSError, ValueError), open(f"/proc/{child}/stat") as stream:
        if int(stream.read().rpartition(")")[2].split()[17]) > MAX_THREADS:
            return f"more than {MAX_THREADS} threads"
    size = 0
    for count, entry in enumerate(_entries(folder)):
        with contextlib.suppress(OSError):
            size += entry.stat(follow_symlinks=False).st_blocks * 512
        if size > scratch_bytes:
            return f"more than {scratch_bytes >> 20} MiB of files"
        if count >= MAX_FILES:
            return f"more than {MAX_FILES} files"
    return ""


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    """Everything below a folder whose content changes and whose names may be longer than a path may be."""
    pending = [folder]
    while pending:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                yield entry
                if entry.is_dir(follow_symlinks=False):
                    pending.append(entry.path)


def _end(child: int) -> None:
    """Kill the child and every process that it left; returns when none is there any more."""
    with contextlib.suppress(OSError):
        os.kill(child, signal.SIGKILL)
    while True:
        for pid in _children():
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        try:
            if os.waitpid(-1, os.WNOHANG)[0] == 0:
                time.sleep(0.0005)
        except ChildProcessError:
            return


def _children() -> list[int]:
    try:
        with open(f"/proc/self/task/{os.getpid()}/children") as stream:
            return [int(pid) for pid in stream.read().split()]
    except OSError:  # a kernel without that file
        return [pid for pid, parent, _ in _processes() if parent == os.getpid()]


def _processes() -> Iterator[tuple[int, int, int]]:
    """Number, parent and count of threads of every process that can be seen."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError, ValueError, IndexError), open(f"/proc/{name}/stat") as stream:
                fields = stream.read().rpartition(")")[2].split()
                yield int(name), int(fields[1]), int(fields[17])


def _drain(report: int) -> str:
    os.set_blocking(report, False)
    data = b""
    with contextlib.suppress(BlockingIOError):
        while len(data) < REPORT_BYTES and (part := os.read(report, REPORT_BYTES)):
            data += part
    return data[:REPORT_BYTES].decode("utf-8", "replace")


def remove_below(folder: str) -> None:
    """Empty a folder that a hostile program filled: links are not followed, modes do not matter, nor does depth.

    A folder inside gives up its entries to the top one before it is removed, so that no path grows long.
    """
    token, count = os.urandom(8).hex(), 0
    os.chmod(folder, 0o700)
    while True:
        with os.scandir(folder) as entries:
            found = list(entries)
        if not found:
            return
        for entry in found:
            if not entry.is_dir(follow_symlinks=False):
                os.unlink(entry.path)
                continue
            os.chmod(entry.path, 0o700)
            with os.scandir(entry.path) as inner:
                names = [each.name for each in inner]
            for name in names:
                count += 1
                inside = f"{entry.path}/{name}"
                if os.path.isdir(inside) and not os.path.islink(inside):
                    os.chmod(inside, 0o700)
                os.rename(inside, f"{folder}/.{token}.{count:x}")
            os.rmdir(entry.path)


def start() -> None:
    """Entry point: the first order says how to set up. When the orders end, for whatever reason, this process cleans up."""
    control = Control(socket.socket(fileno=os.dup(0)))
    main(control, control.receive()[0])
