"""What takes rights away from a process that runs other people's programs. Linux, by `ctypes` alone.

- *rlimits*: CPU seconds, address space, size of a file, open files, no core dumps;
- *namespaces*: users, network, IPC and mounts of its own, with a small memory file system for the program's folder;
- *capabilities*: none, also for root;
- *files* (Landlock, Linux 5.13+): reads only below the Python installation and the system libraries, writes only in the
  program's own folder;
- *system calls* (seccomp, x86-64 and arm64): no new processes, no signals, no sockets, no tracing, no reading of other
  processes' memory, no change of owners or modes, no mounts, no namespaces, no shared memory, no io_uring.

What is not covered: docs/evaluation-code.md.
"""

import ctypes
import os
import platform
import resource
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_SET_CHILD_SUBREAPER, PR_SET_NO_NEW_PRIVS = 1, 22, 36, 38
CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWNET, CLONE_THREAD = 0x20000, 0x08000000, 0x10000000, 0x40000000, 0x10000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE, MNT_DETACH = 2, 4, 0x4000, 0x40000, 2
CAPABILITIES_VERSION = 0x20080522
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
EPERM, ENOSYS, SIGKILL = 1, 38, 9
READABLE = (
    "/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/dev/null", "/dev/zero", "/dev/urandom", "/dev/random",
)  # fmt: skip


# Refused system calls, by name and number (the kernel's tables). Those of Linux 5.1 and later have the same number everywhere.
EVERYWHERE = dict(  # noqa: C408
    pidfd_send_signal=424, io_uring_setup=425, open_tree=428, move_mount=429, fsopen=430, fsconfig=431, fsmount=432, pidfd_open=434,
    pidfd_getfd=438, process_madvise=440, mount_setattr=442, memfd_secret=447, fchmodat2=452, setxattrat=463, removexattrat=466,
)  # fmt: skip
X86_64 = dict(  # noqa: C408
    socket=41, connect=42, bind=49, fork=57, vfork=58, execve=59, execveat=322, ptrace=101, kill=62, tkill=200, tgkill=234,
    rt_sigqueueinfo=129, rt_tgsigqueueinfo=297, process_vm_readv=310, process_vm_writev=311, unshare=272, setns=308, mount=165,
    umount2=166, pivot_root=155, chroot=161, keyctl=250, add_key=248, request_key=249, bpf=321, perf_event_open=298,
    userfaultfd=323, kcmp=312, open_by_handle_at=304, name_to_handle_at=303, memfd_create=319, shmget=29, shmat=30, semget=64,
    msgget=68, mq_open=240, chmod=90, fchmod=91, fchmodat=268, chown=92, fchown=93, lchown=94, fchownat=260, utime=132, utimes=235,
    utimensat=280, futimesat=261, setxattr=188, lsetxattr=189, fsetxattr=190, removexattr=197, lremovexattr=198, fremovexattr=199,
    mknod=133, mknodat=259, setpriority=141, sched_setaffinity=203, sched_setscheduler=144, sched_setparam=142, sched_setattr=314,
    ioprio_set=251, setuid=105, setgid=106, setreuid=113, setregid=114, setresuid=117, setresgid=119, setgroups=116,
    init_module=175, finit_module=313, delete_module=176, kexec_load=246, reboot=169, swapon=167, swapoff=168, acct=163,
    settimeofday=164, clock_settime=227, adjtimex=159, sethostname=170, setdomainname=171, syslog=103, quotactl=179,
    personality=135, migrate_pages=256, move_pages=279, fanotify_init=300,
)  # fmt: skip
AARCH64 = dict(  # noqa: C408
    socket=198, connect=203, bind=200, execve=221, execveat=281, ptrace=117, kill=129, tkill=130, tgkill=131, rt_sigqueueinfo=138,
    rt_tgsigqueueinfo=240, process_vm_readv=270, process_vm_writev=271, unshare=97, setns=268, mount=40, umount2=39, pivot_root=41,
    chroot=51, keyctl=219, add_key=217, request_key=218, bpf=280, perf_event_open=241, userfaultfd=282, kcmp=272,
    open_by_handle_at=265, name_to_handle_at=264, memfd_create=279, shmget=194, shmat=196, semget=190, msgget=186, mq_open=180,
    fchmod=52, fchmodat=53, fchown=55, fchownat=54, utimensat=88, setxattr=5, lsetxattr=6, fsetxattr=7, removexattr=14,
    lremovexattr=15, fremovexattr=16, mknodat=33, setpriority=140, sched_setaffinity=122, sched_setscheduler=119,
    sched_setparam=118, sched_setattr=274, ioprio_set=30, setuid=146, setgid=144, setreuid=145, setregid=143, setresuid=147,
    setresgid=149, setgroups=159, init_module=105, finit_module=273, delete_module=106, kexec_load=104, reboot=142, swapon=224,
    swapoff=225, acct=89, settimeofday=170, clock_settime=112, adjtimex=171, sethostname=161, setdomainname=162, syslog=116,
    quotactl=60, personality=92, migrate_pages=238, move_pages=239, fanotify_init=262,
)  # fmt: skip
CLONE3 = 435


@dataclass(frozen=True)
class Calls:
    """System call numbers of one architecture."""

    audit: int
    clone: int
    prlimit64: int
    denied: tuple[int, ...]


ARCHITECTURES = {
    "x86_64": Calls(0xC000003E, 56, 302, (*X86_64.values(), *EVERYWHERE.values())),
    "aarch64": Calls(0xC00000B7, 220, 261, (*AARCH64.values(), *EVERYWHERE.values())),
}


@dataclass(frozen=True)
class Limits:
    """What one program may use.

    Attributes:
        cpu_seconds: of the process with all its threads.
        memory_bytes: address space.
        file_bytes: size of one file.
        open_files: descriptors.
    """

    cpu_seconds: int
    memory_bytes: int
    file_bytes: int = 16 << 20
    open_files: int = 256


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _check(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent dies."""
    _check(_libc().prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "pdeathsig")


def adopt_orphans() -> None:
    """Become the parent of descendants whose parents die, so that no daemon gets away."""
    _check(_libc().prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0), "subreaper")


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


def limit_processes(count: int) -> None:
    """Limit the processes and threads of this user, on the whole machine."""
    hard = resource.getrlimit(resource.RLIMIT_NPROC)[1]
    capped = count if hard == resource.RLIM_INFINITY else min(count, hard)
    resource.setrlimit(resource.RLIMIT_NPROC, (capped, capped))


def enter_namespaces(folder: str, size_bytes: int) -> None:
    """Enter namespaces for users, network (without any interface), IPC and mounts; `folder` becomes a file system in memory.

    Args:
        folder: an empty folder.
        size_bytes: what it may hold.

    Raises:
        OSError: the machine does not let this user do that.
    """
    user, group = os.geteuid(), os.getegid()
    libc = _libc()
    _check(libc.unshare(CLONE_NEWUSER | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWNS), "unshare")
    for file, text in (("setgroups", "deny"), ("uid_map", f"{user} {user} 1"), ("gid_map", f"{group} {group} 1")):
        with open(f"/proc/self/{file}", "w") as stream:
            stream.write(text)
    _check(libc.mount(None, b"/", None, MS_REC | MS_PRIVATE, None), "private mounts")
    options = f"size={size_bytes},nr_inodes=20k,mode=700".encode()
    _check(libc.mount(b"tmpfs", folder.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options), "tmpfs")


def unmount(folder: str) -> None:
    """Take the file system of `enter_namespaces` away again, if there is one."""
    _libc().umount2(folder.encode(), MNT_DETACH)


def drop_capabilities() -> None:
    """Give up every capability, which root has without asking."""
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITIES_VERSION, 0))
    none = ctypes.create_string_buffer(24)
    _check(_libc().capset(header, none), "capset")


def keep_privileges_low() -> None:
    """No executable may raise privileges from here on; Landlock and seccomp require this."""
    _check(_libc().prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "no_new_privs")


def landlock_version() -> int:
    """The kernel's version of Landlock; 0 without it."""
    return max(0, int(_libc().syscall(LANDLOCK_CREATE, None, 0, 1)))


def restrict_files(writable: Sequence[str], readable: Sequence[str]) -> None:
    """Landlock: allow writes below `writable` and reads below `readable` only; refuse TCP and signals where it can."""
    libc, version = _libc(), landlock_version()
    if not version:
        raise OSError(ENOSYS, "the kernel has no Landlock")
    every = (1 << {1: 13, 2: 14, 3: 15, 4: 15}.get(version, 16)) - 1
    fields = [every, *([3] if version >= 4 else []), *([3] if version >= 6 else [])]  # files; TCP; abstract sockets and signals
    attributes = struct.pack(f"{len(fields)}Q", *fields)
    buffer = ctypes.create_string_buffer(attributes, len(attributes))
    ruleset = _check(libc.syscall(LANDLOCK_CREATE, buffer, len(attributes), 0), "landlock_create_ruleset")
    read = (1 << 0) | (1 << 2) | (1 << 3)  # execute, read a file, read a folder
    special = (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11)  # making devices, sockets, pipes
    of_files = (1 << 0) | (1 << 1) | (1 << 2) | ((1 << 14) if version >= 3 else 0)
    for paths, access in ((writable, every & ~special), (readable, read)):
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


def can_filter_calls() -> bool:
    """Whether the table of refused calls knows this machine."""
    return sys.platform == "linux" and platform.machine() in ARCHITECTURES


def _instruction(code: int, jump_true: int, jump_false: int, value: int) -> bytes:
    return struct.pack("HBBI", code, jump_true, jump_false, value)


def forbid_calls() -> None:
    """seccomp: refuse the calls of the table, new processes (threads are allowed) and limits of other processes."""
    calls = ARCHITECTURES.get(platform.machine())
    if calls is None:
        raise OSError(ENOSYS, f"no seccomp filter for {platform.machine()}")
    load, equal, at_least, any_bit, give = 0x20, 0x15, 0x35, 0x45, 0x06
    allow, refuse, unknown = 0x7FFF0000, 0x00050000 | EPERM, 0x00050000 | ENOSYS
    program = [
        _instruction(load, 0, 0, 4),
        _instruction(equal, 1, 0, calls.audit),
        _instruction(give, 0, 0, refuse),
        _instruction(load, 0, 0, 0),
        _instruction(at_least, 0, 1, 0x40000000),  # the x32 table
        _instruction(give, 0, 0, refuse),
        _instruction(equal, 0, 4, calls.clone),  # threads share the thread group; processes do not
        _instruction(load, 0, 0, 16),
        _instruction(any_bit, 0, 1, CLONE_THREAD),
        _instruction(give, 0, 0, allow),
        _instruction(give, 0, 0, refuse),
        _instruction(equal, 0, 4, calls.prlimit64),  # of this process only: the first argument is 0
        _instruction(load, 0, 0, 16),
        _instruction(equal, 0, 1, 0),
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


def confine(limits: Limits, *, folder: str | None, readable: Sequence[str], landlock: bool, seccomp: bool) -> None:
    """Take away from this process, for good, everything that a program does not need.

    Args:
        limits: what it may use.
        folder: where it may write; nowhere if None.
        readable: folders that it may read besides the system's libraries.
        landlock: whether to restrict files.
        seccomp: whether to refuse system calls.
    """
    limit(limits)
    drop_capabilities()
    keep_privileges_low()
    if landlock:
        restrict_files([] if folder is None else [folder], [*READABLE, *readable])
    if seccomp:
        forbid_calls()
