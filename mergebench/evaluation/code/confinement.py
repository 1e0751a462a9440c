"""What takes rights away from the process that runs a model-written program. Linux, by `ctypes` alone.

- *rlimits*: CPU seconds, address space, size of a file, open files, no core dumps;
- *network*: a namespace of its own (needs unprivileged user namespaces), and with seccomp no sockets at all;
- *files* (Landlock, Linux 5.13+): reads only below the Python installation and the system libraries, writes only in the
  program's own folder;
- *processes* (seccomp, x86-64 and arm64): no new processes, no signals to others, no tracing, no io_uring.

Not covered: how much a program writes into its own folder in many files, covert channels such as CPU load, and kernel
bugs. A program shares its process with its tests, so one written to imitate the harness could report a pass: the nonce
stops accidents and lazy cheats, not a determined forgery.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP = 1, 38, 22
CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWIPC, CLONE_THREAD = 0x10000000, 0x40000000, 0x08000000, 0x10000
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EPERM, ENOSYS, SIGKILL = 1, 38, 9
READABLE = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip


@dataclass(frozen=True)
class Calls:
    """System call numbers of one architecture."""

    audit: int
    clone: int
    denied: tuple[int, ...]


# socket connect bind fork vfork execve execveat ptrace kill tkill tgkill rt_sigqueueinfo rt_tgsigqueueinfo pidfd_send_signal
# process_vm_writev unshare setns mount keyctl bpf io_uring_setup
ARCHITECTURES = {
    "x86_64": Calls(
        0xC000003E,
        56,
        (41, 42, 49, 57, 58, 59, 322, 101, 62, 200, 234, 129, 297, 424, 311, 272, 308, 165, 250, 321, 425),
    ),
    "aarch64": Calls(0xC00000B7, 220, (198, 203, 200, 221, 281, 117, 129, 130, 131, 138, 240, 424, 271, 97, 268, 40, 219, 280, 425)),
}
CLONE3 = 435


@dataclass(frozen=True)
class Limits:
    """What one program may use."""

    cpu_seconds: int
    memory_bytes: int
    file_bytes: int = 16 << 20
    open_files: int = 256


@dataclass(frozen=True)
class Means:
    """Which protections work on this machine."""

    namespace: bool = False
    landlock: int = 0
    seccomp: bool = False

    @property
    def network(self) -> str:
        return "namespace" if self.namespace else "seccomp" if self.seccomp else "open"

    @property
    def strong(self) -> bool:
        """Whether both the network and foreign files are out of reach."""
        return self.network != "open" and self.landlock > 0


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies (best effort)."""
    if sys.platform == "linux":
        _libc().prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)


def limit(limits: Limits) -> None:
    """Set the resource limits."""
    for name, value in (
        ("RLIMIT_CPU", limits.cpu_seconds),
        ("RLIMIT_AS", limits.memory_bytes),
        ("RLIMIT_FSIZE", limits.file_bytes),
        ("RLIMIT_NOFILE", limits.open_files),
        ("RLIMIT_CORE", 0),
    ):
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        capped = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (capped, capped))


def cut_network() -> None:
    """Enter a network namespace without any interface."""
    _check(_libc().unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC), "unshare")


def keep_privileges_low() -> None:
    """No executable may raise privileges from here on; Landlock and seccomp require this."""
    _check(_libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def restrict_files(writable: Sequence[str], readable: Sequence[str]) -> int:
    """Landlock: allow writes below `writable` and reads below `readable` only; returns the kernel's Landlock version."""
    libc = _libc()
    version = libc.syscall(LANDLOCK_CREATE, None, 0, 1)
    if version <= 0:
        raise OSError(ENOSYS, "the kernel has no Landlock")
    every = (1 << {1: 13, 2: 14}.get(version, 15)) - 1
    attributes = struct.pack("QQ", every, 3) if version >= 4 else struct.pack("Q", every)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _check(libc.syscall(LANDLOCK_CREATE, buffer, len(attributes), 0), "landlock_create_ruleset")
    read = (1 << 0) | (1 << 2) | (1 << 3)  # execute, read a file, read a folder
    of_files = (1 << 0) | (1 << 1) | (1 << 2) | ((1 << 14) if version >= 3 else 0)
    for paths, access in ((writable, every), (readable, read)):
        for path in paths:
            if not os.path.exists(path):
                continue
            handle = os.open(path, os.O_PATH | os.O_CLOEXEC)
            rule = struct.pack("=Qi", access if os.path.isdir(path) else access & of_files, handle)
            pointer = ctypes.create_string_buffer(rule, len(rule))
            _check(libc.syscall(LANDLOCK_ADD, ruleset, 1, pointer, 0), f"landlock_add_rule {path}")
            os.close(handle)
    _check(libc.syscall(LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)
    return int(version)


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def forbid_calls() -> None:
    """seccomp: refuse processes, signals, sockets, tracing and io_uring."""
    calls = ARCHITECTURES.get(platform.machine())
    if calls is None or sys.platform != "linux":
        raise OSError(ENOSYS, f"no seccomp filter for {platform.machine()}")
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050000 | EPERM, 0x00050000 | ENOSYS
    program = [
        _instruction(load, 0, 0, 4),
        _instruction(equal, 1, 0, calls.audit),
        _instruction(give, 0, 0, refuse),
        _instruction(load, 0, 0, 0),
        _instruction(at_least, 0, 1, 0x40000000),
        _instruction(give, 0, 0, refuse),
        _instruction(equal, 0, 4, calls.clone),  # threads share the thread group; processes do not
        _instruction(load, 0, 0, 16),
        _instruction(any_bit, 0, 1, CLONE_THREAD),
        _instruction(give, 0, 0, allow),
        _instruction(give, 0, 0, refuse),
        _instruction(equal, 0, 1, CLONE3),
        _instruction(give, 0, 0, unknown),
    ]
    for number in calls.denied:
        program += [_instruction(equal, 0, 1, number), _instruction(give, 0, 0, refuse)]
    program.append(_instruction(give, 0, 0, allow))
    code = b"".join(program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    pointer = ctypes.create_string_buffer(header, len(header))
    _check(_libc().prctl(PR_SET_SECCOMP, 2, pointer, 0, 0), "seccomp")


def confine(folder: str, readable: Sequence[str], limits: Limits, means: Means) -> None:
    """Take away from this process, for good, everything that a program does not need."""
    limit(limits)
    if means.namespace:
        cut_network()
    if means.landlock or means.seccomp:
        keep_privileges_low()
    if means.landlock:
        restrict_files([folder], [*READABLE, *readable])
    if means.seccomp:
        forbid_calls()


def detect(folder: str) -> Means:
    """Find out, in throw-away children, which protections work here."""

    def files() -> None:
        keep_privileges_low()
        restrict_files([folder], READABLE)

    def calls() -> None:
        keep_privileges_low()
        forbid_calls()

    return Means(namespace=_works(cut_network), landlock=_landlock_version() if _works(files) else 0, seccomp=_works(calls))


def _landlock_version() -> int:
    return int(_libc().syscall(LANDLOCK_CREATE, None, 0, 1))


def _works(action: Callable[[], None]) -> bool:
    child = os.fork()
    if child == 0:
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    return os.waitpid(child, 0)[1] == 0
