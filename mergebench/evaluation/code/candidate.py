"""The side of the model's program: it runs, and its functions are called by the tests through a channel.

Everything in this process may have been rewritten by the program, so nothing that comes out of it is believed: see `wire`.
"""

import sys
import types
from collections.abc import Iterator
from typing import Any

from mergebench.evaluation.code.wire import Channel, Foreign, decode, encode

NAME = "solution"
MUTABLE = (list, dict, set, bytearray)
MESSAGE_CHARACTERS = 400


def run(order: dict[str, Any], channel: int, report: int) -> None:
    """Run ``order["program"]`` and answer calls until the tests are over."""
    answer(order["program"], Channel(channel))


def answer(program: str, channel: Channel) -> None:
    """Run a program and answer what comes through the channel: names to look for, calls, steps of iterators."""
    held: list[Any] = []
    module = types.ModuleType(NAME)
    sys.modules[NAME] = module
    try:
        exec(compile(program, "<program>", "exec"), module.__dict__)
    except BaseException as error:
        channel.send(_raised(error))
        return
    channel.send({"ran": True})
    while True:
        request = channel.receive()
        try:
            channel.send(_reply(request, vars(module), held))
        except BaseException as error:
            channel.send(_raised(error))


def _raised(error: BaseException) -> dict[str, Any]:
    try:
        text = str(error)[:MESSAGE_CHARACTERS]
    except BaseException:
        text = ""
    kinds = [kind.__name__ for kind in type(error).__mro__]
    return {"raised": [kinds, text]}


def _reply(request: dict[str, Any], space: dict[str, Any], held: list[Any]) -> dict[str, Any]:
    def keep(kind: str, value: Any) -> Any:
        if kind == "foreign":
            return {"foreign": type(value).__name__}
        held.append(value)
        return {kind: len(held) - 1}

    if "find" in request:
        return {"found": {name: callable(space[name]) for name in request["find"] if name in space}}
    if "get" in request:
        return {"result": encode(space[request["get"]], keep)}
    if "next" in request:
        iterator: Iterator[Any] = held[request["next"]]
        for value in iterator:
            return {"result": encode(value, keep)}
        return {"end": True}
    function = space[request["call"]] if isinstance(request["call"], str) else held[request["call"]]
    given = [decode(value, _no_handles) for value in request["args"]]
    named = {name: decode(value, _no_handles) for name, value in request["kwargs"].items()}
    result = function(*given, **named)
    changed = []
    for index, value in enumerate(given):
        if isinstance(value, MUTABLE) or type(value).__module__ in ("numpy", "collections"):
            now = encode(value, keep)
            if now != request["args"][index]:
                changed.append([index, now])
    return {"result": encode(result, keep), "changed": changed}


def _no_handles(kind: str, _: Any) -> Any:
    return Foreign(kind)
