"""The side of the tests: they run here, unchanged, and every name that they take from the program is a call to it.

No line of the model's program runs in this process. What it answers is plain data (`wire`), so an assertion that holds here
holds for values that the program really returned: equality, truth and arithmetic are Python's own. The tests themselves come
from a dataset, and this process is confined as well.
"""

import builtins
import json
import os
import symtable
from collections import OrderedDict, deque
from typing import Any

from mergebench.evaluation.code.wire import Channel, Foreign, WireError, decode, encode

REASON_CHARACTERS = 400
CACHED = 4
# An exception by which a caller's loop would take itself for finished would skip the tests that are left.
ENDING = ("StopIteration", "StopAsyncIteration", "GeneratorExit")

_cache: OrderedDict[tuple[str, str], tuple[Any, list[str]]] = OrderedDict()


class ProgramError(Exception):
    """The program raised an exception of a kind of its own."""


class Remote:
    """Something that lives in the program's process."""

    def __init__(self, session: "Session", handle: Any) -> None:
        self._session, self._handle = session, handle


class RemoteFunction(Remote):
    """A function of the program."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._session.call(self._handle, args, kwargs)


class RemoteIterator(Remote):
    """An iterator or generator that the program returned; each step runs there."""

    def __iter__(self) -> "RemoteIterator":
        return self

    def __next__(self) -> Any:
        reply = self._session.ask({"next": self._handle})
        if "end" in reply:
            raise StopIteration
        return self._session.value(reply["result"])


class Session:
    """The tests' view of one running program."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.uses = 0

    def ask(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request and return the reply, or raise what the program raised."""
        self.channel.send(request)
        reply = self.channel.receive()
        if not isinstance(reply, dict):
            raise WireError("not a reply")
        if "raised" in reply:
            raise _exception(reply["raised"])
        return reply

    def value(self, encoded: Any) -> Any:
        """A value of the program."""
        return decode(encoded, self._stand_in)

    def _stand_in(self, kind: str, payload: Any) -> Any:
        if kind == "foreign":
            return Foreign(str(payload)[:80])
        if not isinstance(payload, int):
            raise WireError("a handle is a number")
        return (RemoteFunction if kind == "function" else RemoteIterator)(self, payload)

    def call(self, handle: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call a function of the program; what it changes in lists, sets and dicts given to it is changed here too."""
        self.uses += 1
        sent = {"call": handle, "args": [_sent(a) for a in args], "kwargs": {k: _sent(v) for k, v in kwargs.items()}}
        reply = self.ask(sent)
        for index, changed in reply.get("changed", ()):
            _change(args[index], self.value(changed))
        return self.value(reply["result"])

    def names(self, wanted: list[str]) -> dict[str, Any]:
        """What the program defines of the names that the tests want."""
        found = self.ask({"find": wanted})["found"]
        space: dict[str, Any] = {}
        for name in wanted:
            if found.get(name) is True:
                space[name] = RemoteFunction(self, name)
            elif found.get(name) is False:
                self.uses += 1
                space[name] = self.value(self.ask({"get": name})["result"])
        return space


def _sent(value: Any) -> Any:
    def refuse(kind: str, what: Any) -> Any:
        raise WireError(f"the tests give the program a {type(what).__name__}, which cannot be sent to it")

    return encode(value, refuse)


def _exception(raised: Any) -> Exception:
    """The nearest built-in exception to what the program raised, so that tests which expect one find it."""
    kinds, text = raised
    if not isinstance(kinds, list) or not isinstance(text, str):
        raise WireError("not an exception")
    if any(kind in ENDING for kind in kinds):
        return ProgramError(f"{kinds[0]}: {text}"[:REASON_CHARACTERS])
    for kind in kinds:
        found = getattr(builtins, kind, None) if isinstance(kind, str) else None
        if isinstance(found, type) and issubclass(found, Exception) and found is not Exception:
            try:
                error = found(text)
            except TypeError:
                continue
            error.of_program = str(kinds[0])[:80]  # type: ignore[attr-defined]
            return error
    return ProgramError(f"{str(kinds[0])[:80]}: {text}"[:REASON_CHARACTERS])


def _change(own: Any, now: Any) -> None:
    if type(own) is not type(now):
        return
    if isinstance(own, list | bytearray):
        own[:] = now
    elif isinstance(own, dict | set):
        own.clear()
        own.update(now)
    elif isinstance(own, deque):
        own.clear()
        own.extend(now)
    elif type(own).__name__ == "ndarray" and own.shape == now.shape and own.dtype == now.dtype:
        own[...] = now


def wanted(tests: str) -> list[str]:
    """The global names that tests use and do not define, built-in ones aside.

    Raises:
        SyntaxError: the tests are no Python.
    """
    top = symtable.symtable(tests, "<tests>", "exec")
    defined = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used: set[str] = set()
    tables = [top]
    while tables:
        table = tables.pop()
        used |= {s.get_name() for s in table.get_symbols() if s.is_referenced() and (table is top or s.is_global())}
        tables += table.get_children()
    return sorted(name for name in used - defined if not hasattr(builtins, name))


def compiled(order: dict[str, Any]) -> Any:
    """The code of ``order["tests"]`` and its names; None if it is no Python. The samples of a problem share it."""
    key = (order["tests"], order["entry"])
    if key not in _cache:
        try:
            names = sorted({*wanted(key[0]), *([key[1]] if key[1] else [])})
            _cache[key] = compile(key[0], "<tests>", "exec"), names
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None
        while len(_cache) > CACHED:
            _cache.popitem(last=False)
    return _cache[key]


def prepare() -> None:
    """Once per server: numpy holds that an empty array is close to every number, which no test means."""
    try:
        import numpy
    except ImportError:
        return
    original = numpy.allclose

    def allclose(a: Any, b: Any, *args: Any, **kwargs: Any) -> bool:
        return (numpy.size(a) == 0) == (numpy.size(b) == 0) and bool(original(a, b, *args, **kwargs))

    numpy.allclose = allclose


def run(order: dict[str, Any], channel: int, report: int) -> None:
    """Run the tests and report how they ended."""
    passed, reason = examine(order["compiled"], Channel(channel))
    text = reason.encode("utf-8", "backslashreplace").decode()[:REASON_CHARACTERS]
    os.write(report, json.dumps({"passed": passed, "reason": text}).encode())


def examine(code: tuple[Any, list[str]] | None, channel: Channel) -> tuple[bool, str]:
    """Run tests against the program at the other end; whether they held, else why not."""
    if code is None:
        return False, "the tests are not valid Python"
    session = Session(channel)
    try:
        started = channel.receive()
        if not isinstance(started, dict) or "raised" in started:
            raise _exception(started["raised"])
        space = {"__name__": "tests", **session.names(code[1])}
        exec(code[0], space)
    except (EOFError, BrokenPipeError):
        return False, "ended without finishing its tests"
    except WireError as error:
        return False, f"what it answered is no value: {error}"
    except MemoryError:
        return False, "MemoryError"
    except BaseException as error:
        return False, _said(error)
    return (True, "") if session.uses else (False, "its tests never used it")


def _said(error: BaseException) -> str:
    name = getattr(error, "of_program", type(error).__name__)
    return str(error) if isinstance(error, ProgramError) else f"{name}: {error}"
