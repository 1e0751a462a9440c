# ruff: noqa: E501 (a program is a line)
"""Programs that try to get out of the sandbox, and programs that try to pass without being right.

An escape is the body of a function that returns True if it succeeded; its test asks for just that, so that a pass means an
escape. It knows all that an attacker could wish for, as ``W``. A forgery is a whole program whose function is wrong.
"""

import textwrap

ESCAPES = {
    "tcp": "import socket\nsocket.create_connection(('127.0.0.1', W['tcp']), 1).send(b'x')",
    "udp": "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('127.0.0.1', W['udp']))",
    "unix socket": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect(W['unix'])\ns.send(b'x')",
    "abstract unix socket": "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0' + W['abstract'])\ns.send(b'x')",
    "name lookup": "import socket\nsocket.getaddrinfo('example.org', 80)",
    "netlink": "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW).bind((0, 0))",
    "inherited descriptors": "import os, stat\nreturn any(stat.S_ISSOCK(m) or stat.S_ISREG(m) for m in modes(range(4, 256)))",
    "password file": "open('/etc/passwd').read()",
    "home of root": "import os\nos.listdir('/root')",
    "home": "import os\nos.listdir(W['home'])",
    "repository": "open(W['repository'] + '/README.md').read()",
    "package": "import mergebench.evaluation.code.programs",
    "foreign file": "open(W['witness']).read()",
    "environment of others": "for pid in (W['pid'], os.getppid(), 1):\n    if token in read(f'/proc/{pid}/environ'):\n        return True\nreturn False",
    "own environment": "return token in repr(dict(os.environ)).encode() + read('/proc/self/environ')",
    "command lines": "return any(read(f'/proc/{pid}/cmdline') for pid in range(2, 40000) if pid != os.getpid())",
    "memory of the parent": "open(f'/proc/{os.getppid()}/mem', 'rb')",
    "write outside": "open(W['witness'], 'w').write('x')",
    "append outside": "open(W['witness'], 'a').write('x')",
    "truncate outside": "os.truncate(W['witness'], 0)",
    "remove outside": "os.remove(W['witness'])",
    "rename outside": "os.rename(W['witness'], W['witness'] + '.moved')",
    "new file outside": "open(W['folder'] + '/new', 'w')",
    "modes outside": "os.chmod(W['witness'], 0)",
    "owner outside": "os.chown(W['witness'], 1, 1)",
    "times outside": "os.utime(W['witness'], (0, 0))",
    "attributes outside": "os.setxattr(W['witness'], 'user.x', b'x')",
    "write into the installation": "open(sys.prefix + '/escaped', 'w')",
    "sitecustomize": "import sysconfig\nopen(sysconfig.get_path('purelib') + '/sitecustomize.py', 'w')",
    "symbolic link out": "os.symlink(W['witness'], 'link')\nopen('link').read()",
    "write through a link": "os.symlink(W['witness'], 'link2')\nopen('link2', 'w').write('x')",
    "hard link": "os.link(W['witness'], 'hard')\nopen('hard', 'a').write('x')",
    "own folder replaced": "here = os.getcwd()\nos.rename(here, here + 'x')\nos.symlink(W['folder'], here)",
    "links left for the clean-up": "os.symlink(W['folder'], 'trap')\nos.makedirs('a/b')\nos.symlink(W['folder'], 'a/b/trap')\nreturn False",
    "folders without rights": "os.makedirs('c/d')\nopen('c/d/e', 'w')\nos.mkdir('c/f', 0)\nreturn False",
    "deep folders": "for _ in range(3000):\n    os.mkdir('d')\n    os.chdir('d')\nreturn False",
    "parent folder": "os.chdir('..')\nopen('new', 'w')",
    "fork": "pid = os.fork()\nos._exit(0) if pid == 0 else os.waitpid(pid, 0)",
    "fork bomb": "while True:\n    os.fork()",
    "vfork": "return libc.vfork() >= 0",
    "clone": "return libc.syscall(56 if os.uname().machine == 'x86_64' else 220, 17, 0, 0, 0, 0) >= 0",
    "shell": "import subprocess\nsubprocess.run(['/bin/true'], check=True)",
    "system": "return os.system('true') == 0",
    "preloaded library": "open('x.so', 'wb')\nos.execve('/bin/true', ['true'], {'LD_PRELOAD': os.getcwd() + '/x.so'})",
    "daemon": "if os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n        while True:\n            pass\n    os._exit(0)",
    "multiprocessing": "import multiprocessing\np = multiprocessing.Process(target=len, args=('',))\np.start()\np.join()",
    "thread bomb": "import threading, time\nthreading.stack_size(65536)\nfor _ in range(2000):\n    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\ntime.sleep(1)",
    "memory bomb": "x = bytearray(1 << 40)",
    "memory in steps": "kept = []\nwhile len(kept) < 64:\n    kept.append(bytearray(b'x' * (32 << 20)))",
    "memory outside the heap": "import mmap\nmmap.mmap(-1, 2 << 30)",
    "memory file": "os.ftruncate(os.memfd_create('x'), 1 << 30)",
    "shared memory": "open('/dev/shm/mergebench-escaped', 'w').write('x')",
    "shared memory of the library": "from multiprocessing import shared_memory\nshared_memory.SharedMemory(create=True, size=1 << 20)",
    "system V memory": "return libc.shmget(0, 1 << 20, 0o1600) >= 0",
    "message queue": "return libc.mq_open(b'/mergebench', 0o102, 0o600, None) >= 0",
    "large file": "f = open('big', 'wb')\nfor _ in range(1024):\n    f.write(b'x' * (1 << 20))",
    "many large files": "for i in range(40):\n    open(f'big{i}', 'wb').write(b'x' * (15 << 20))\ntime.sleep(1)",
    "many files": "for i in range(30000):\n    open(f'small{i}', 'w').close()\ntime.sleep(1)",
    "sparse file": "os.truncate(open('sparse', 'w').fileno(), 1 << 40)",
    "signal to the parent": "os.kill(os.getppid(), 15)",
    "signal to the runner": "os.kill(W['pid'], 15)",
    "signals to all": "os.kill(-1, 0)",
    "thread signal": "return libc.syscall(234 if os.uname().machine == 'x86_64' else 131, W['pid'], W['pid'], 15) >= 0",
    "ptrace": "return libc.ptrace(16, os.getppid(), 0, 0) >= 0",
    "other memory": "import ctypes\nb = ctypes.create_string_buffer(64)\nreturn libc.process_vm_readv(os.getppid(), b, 1, b, 1, 0) >= 0",
    "descriptors of the parent": "fd = libc.syscall(434, os.getppid(), 0)\nreturn fd >= 0 and libc.syscall(438, fd, 0, 0) >= 0",
    "limits of the parent": "import resource\nresource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (4, 4))",
    "own limits": "import resource\nresource.setrlimit(resource.RLIMIT_FSIZE, (1 << 40, 1 << 40))",
    "priority of the parent": "os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "another user": "os.setuid(0 if os.getuid() else 65534)",
    "capabilities": "os.chroot('.')",
    "device": "import stat\nos.mknod('disk', 0o600 | stat.S_IFBLK, os.makedev(254, 0))",
    "new namespaces": "return libc.unshare(0x10000000) == 0 or libc.unshare(0x20000) == 0",
    "mount": "return libc.mount(b'none', os.getcwd().encode(), b'tmpfs', 0, None) == 0",
    "unmount": "return libc.umount2(os.getcwd().encode(), 2) == 0",
    "io_uring": "import ctypes\nreturn libc.syscall(425, 1, ctypes.create_string_buffer(256)) >= 0",
    "keyring": "return libc.syscall(250 if os.uname().machine == 'x86_64' else 219, 0, -3, 1) >= 0",
    "files by handle": "return libc.open_by_handle_at(3, b'x' * 64, 0) >= 0 or errno() != 1",
    "32-bit calls": "return libc.syscall(0x40000000 + 41, 2, 1, 0) >= 0",
}  # fmt: skip

HELPERS = """
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
errno = ctypes.get_errno
token = b"hf_" + b"stolen"
def read(path):
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""
def modes(descriptors):
    for descriptor in descriptors:
        try:
            yield os.fstat(descriptor).st_mode
        except OSError:
            pass
"""

SQUARE = "import numpy as np\nfor x, y in [(20, 400), (3, 9)]:\n    assert f(x) == y\nassert np.allclose(f(0.5), 0.25)\n"
EQUAL = (
    "class Equal{base}:\n    def __eq__(self, other): return True\n    def __ne__(self, other): return False\n    __hash__ = {base_hash}\n"
)

FORGERIES = {
    "exit at once": "import os\nos._exit(0)",
    "exit": "import sys\nsys.exit(0)",
    "exit when called": "import os\ndef f(x): os._exit(0)",
    "system exit when called": "def f(x): raise SystemExit(0)",
    "keyboard interrupt": "def f(x): raise KeyboardInterrupt",
    "says passed": "print('passed')\ndef f(x): return 0",
    "verdict to every descriptor": "import os\nfor fd in range(256):\n    try:\n        os.write(fd, b'{\"passed\": true, \"reason\": \"\"}')\n    except OSError:\n        pass\ndef f(x): return 0",
    "framed verdict": "import os, json, struct\nfor m in ({'ran': True}, {'found': {}}, {'passed': True, 'reason': ''}):\n    d = json.dumps(m).encode()\n    os.write(3, struct.pack('>I', len(d)) + d)\nos._exit(0)",
    "names denied": "import os, json, struct\nfor m in ({'ran': True}, {'found': {}}):\n    d = json.dumps(m).encode()\n    os.write(3, struct.pack('>I', len(d)) + d)\nimport time\ntime.sleep(60)",
    "length without end": "import os\nos.write(3, b'\\xff\\xff\\xff\\xff')\nos._exit(0)",
    "endless channel": "import os\nwhile True:\n    os.write(3, b'\\0\\0\\0\\2{}' * 1000)",
    "channel from a thread": "import os, threading\ndef spam():\n    while True:\n        os.write(3, b'\\0\\0\\0\\x12' + b'{\"result\": 400    }'[:18])\nthreading.Thread(target=spam, daemon=True).start()\ndef f(x): return 0",
    "equal to everything": EQUAL.format(base="", base_hash="None") + "def f(x): return Equal()",
    "an int equal to everything": EQUAL.format(base="(int)", base_hash="int.__hash__") + "def f(x): return Equal(7)",
    "a float equal to everything": EQUAL.format(base="(float)", base_hash="float.__hash__") + "def f(x): return Equal(7)",
    "a text equal to everything": EQUAL.format(base="(str)", base_hash="str.__hash__") + "def f(x): return Equal('7')",
    "a list equal to everything": EQUAL.format(base="(list)", base_hash="None") + "def f(x): return Equal([7])",
    "an array equal to everything": "import numpy as np\nclass A(np.ndarray):\n    def __eq__(self, other): return True\ndef f(x): return np.zeros(1).view(A)",
    "an array of objects": "import numpy as np\n" + EQUAL.format(base="", base_hash="None") + "def f(x):\n    a = np.empty(1, object)\n    a[0] = Equal()\n    return a",
    "an object that reduces to another": "class R:\n    def __reduce__(self): return (eval, ('400',))\ndef f(x): return R()",
    "assertions switched off": "import builtins\nbuiltins.AssertionError = type('Quiet', (Exception,), {})\n__debug__ and None\ndef f(x): return 0",
    "comparison patched": "import numpy as np, numpy.testing\nnp.allclose = np.array_equal = lambda *a, **k: True\nnumpy.testing.assert_allclose = lambda *a, **k: None\ndef f(x): return 0",
    "loops patched": "import builtins\nbuiltins.zip = builtins.enumerate = builtins.range = lambda *a: []\nzip = enumerate = range = isinstance = all = lambda *a: []\ndef f(x): return 0",
    "stop iteration": "def f(x): raise StopIteration",
    "own stop iteration": "class Stop(StopIteration): pass\ndef f(x): raise Stop",
    "at exit": "import atexit, os\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "walks frames": "import sys\ndef f(x):\n    frame = sys._getframe()\n    while frame:\n        for value in frame.f_locals.values():\n            if 'np.all' + 'close(f' in repr(value):\n                return x * x\n        frame = frame.f_back\n    return 0",
    "walks the heap": "import gc\ndef f(x):\n    for value in gc.get_objects():\n        if isinstance(value, dict) and any(isinstance(v, str) and 'np.all' + 'close(f' in v for v in value.values()):\n            return x * x\n    return 0",
    "reads the tests": "import glob\ndef f(x):\n    for path in glob.glob('/tmp/mergebench-*/*') + glob.glob('/proc/*/fd/*'):\n        try:\n            if 'np.all' + 'close(f' in open(path).read(1 << 20):\n                return x * x\n        except (OSError, UnicodeError):\n            pass\n    return 0",
    "empty array": "import numpy as np\ndef f(x): return np.array([]) if isinstance(x, float) else x * x",
    "empty list": "def f(x): return [] if isinstance(x, float) else x * x",
    "no number": "def f(x): return float('nan')",
    "no function": "f = 400",
    "nothing": "",
    "no Python": "def f(:",
    "null bytes": "def f(x):\0 return 400",
    "crash": "import ctypes\ndef f(x): return ctypes.string_at(0)",
    "recursion": "import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(x): return f(x)",
    "nested answer": "def f(x):\n    a = []\n    for _ in range(100000): a = [a]\n    return a",
    "answer in a circle": "def f(x):\n    a = []\n    a.append(a)\n    return a",
    "endless answer": "def f(x):\n    while True: yield x",
    "large answer": "def f(x): return 'x' * (100 << 20)",
    "large number": "def f(x): return 1 << (1 << 31)",
    "half a character": "def f(x): raise ValueError('\\ud800' * 1000)",
    "error without a text": "class E(Exception):\n    def __str__(self): raise E\ndef f(x): raise E",
    "closed descriptors": "import os\nos.closerange(0, 256)\ndef f(x): return x * x",
    "loop without signals": "import signal\nfor s in range(1, 65):\n    try:\n        signal.signal(s, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nwhile True: pass",
    "sleeps": "import time\ntime.sleep(3600)",
    "endless output": "while True: print('x' * 100000)",
    "large packed file": "import zlib\ndef f(x): return zlib.decompress(zlib.compress(b'0' * (1 << 20)) ) * (1 << 20)",
    "pattern without end": "import re\ndef f(x): return re.match(r'(a+)+$', 'a' * 40 + 'b')",
}  # fmt: skip


# These end by the clock; a short one will do.
ENDLESS = (
    "names denied", "endless channel", "recursion", "large number", "loop without signals", "sleeps", "endless output",
    "pattern without end",
)  # fmt: skip


def escape(body: str, wishes: dict[str, object]) -> str:
    """The program of an escape: ``f()`` tries it."""
    return f"{HELPERS}\nW = {wishes!r}\ndef f():\n{textwrap.indent(body, '    ')}\n    return True\n"
