"""Values between the tests and a program that nobody trusts: plain data as JSON, never code.

The process that runs the tests decodes what the model's program sends, so decoding must be safe for any bytes: it builds
values of the types below and of no others, and calls nothing that the sender could choose. (Python's pickle and marshal are
not safe in that sense.) A message is four bytes of length and that much JSON.

Kept, with their exact type: None, bool, int of any size, float with nan and infinities, complex, str with lone surrogates,
bytes, bytearray, list, tuple, set, frozenset, dict and its views, range, deque, Counter, OrderedDict, defaultdict (without its
factory), Fraction, Decimal, dates and times without a zone, and numpy arrays and scalars of numbers, bools and strings.
An instance of a subclass of these arrives as the plain type: its own ``__eq__`` stays behind. Functions and iterators arrive
as handles, and anything else as a `Foreign`, which equals nothing.
"""

import base64
import collections
import datetime
import json
import math
import os
import re
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction
from itertools import chain
from typing import Any

MESSAGE_BYTES = 64 << 20
PLAIN_DTYPE = re.compile(r"[<>|=][?biufcSU]\d*")
TABLE_ROWS, TABLE_CELLS = 10_000, 1 << 28
SMALL = 1 << 63
KINDS = {datetime.date: "date", datetime.time: "time", datetime.datetime: "datetime"}
VIEWS = {type({}.keys()): "keys", type({}.values()): "values", type({}.items()): "items"}

Keep = Callable[[str, Any], Any]


class WireError(Exception):
    """A value that cannot be sent, or bytes that are no value."""


class Foreign:
    """Stands for an object of a type that does not travel. It equals nothing but itself and can do nothing."""

    def __init__(self, kind: str) -> None:
        self.kind = kind

    def __repr__(self) -> str:
        return f"<{self.kind} object of the program>"


def encode(value: Any, keep: Keep) -> Any:
    """A value as something that `json.dumps` takes.

    Args:
        value: any object.
        keep: told a kind (function, iterator, foreign) and an object that does not travel; returns what stands for it.

    Raises:
        RecursionError: nested too deeply, or a cycle.
    """
    kind = type(value)
    if value is None or kind is bool or kind is str:
        return value
    if kind is int:
        return value if -SMALL < value < SMALL else {"int": hex(value)}
    if kind is float:
        return value if math.isfinite(value) else {"float": repr(value)}
    if kind is list:
        return _table(value, keep) or [encode(item, keep) for item in value]
    if kind in (tuple, set, frozenset):
        return {kind.__name__: [encode(item, keep) for item in value]}
    if kind is dict:
        return {"dict": _pairs(value.items(), keep)}
    if kind.__module__ == "numpy":
        return _encode_numpy(value, keep)
    return _encode_rare(value, kind, keep)


def _table(rows: list[Any], keep: Keep) -> dict[str, Any] | None:
    """A large list of tuples, all of one length and of at most 256 different objects, without a step of Python for each entry.

    One published test compares 1.7 million tuples of 77 words (Mbpp/255).
    """
    if len(rows) < TABLE_ROWS or set(map(type, rows)) != {tuple}:
        return None
    widths = set(map(len, rows))
    width = widths.pop()
    if widths or not width:
        return None
    types = set(map(type, chain.from_iterable(rows)))
    if len(types) == 1 and types <= {str, int}:
        objects = list(set(chain.from_iterable(rows)))
        place = {value: index for index, value in enumerate(objects[:256])}
        keys: Iterator[Any] = chain.from_iterable(rows)
    else:  # values that are equal, such as 1 and True, may be different objects
        named = dict(zip(map(id, chain.from_iterable(rows)), chain.from_iterable(rows), strict=True))
        objects = list(named.values())
        place = {identity: index for index, identity in enumerate(named)}
        keys = map(id, chain.from_iterable(rows))
    if len(objects) > 256:
        return None
    codes = bytes(map(place.__getitem__, keys))
    packed = base64.b64encode(zlib.compress(codes, 1)).decode()
    return {"table": [[encode(value, keep) for value in objects], len(rows), width, packed]}


def _rows(objects: list[Any], count: int, width: int, packed: str) -> list[tuple[Any, ...]]:
    if not 0 < count * width <= TABLE_CELLS or width < 1:
        raise WireError("not a table")
    codes = zlib.decompressobj().decompress(base64.b64decode(packed), count * width + 1)
    if len(codes) != count * width:
        raise WireError("a table of another size than it says")
    entries = map(objects.__getitem__, codes)
    return list(zip(*[entries] * width, strict=True))


def _pairs(items: Any, keep: Keep) -> list[Any]:
    return [[encode(key, keep), encode(item, keep)] for key, item in items]


def _encode_numpy(value: Any, keep: Keep) -> Any:
    numpy = sys.modules["numpy"]
    if isinstance(value, numpy.ndarray | numpy.generic) and PLAIN_DTYPE.fullmatch(value.dtype.str):
        data = base64.b64encode(value.tobytes()).decode()
        shape = list(value.shape)
        return {"array": [value.dtype.str, shape, data]} if isinstance(value, numpy.ndarray) else {"scalar": [value.dtype.str, data]}
    return keep("function" if callable(value) else "foreign", value)


def _encode_rare(value: Any, kind: type, keep: Keep) -> Any:
    if isinstance(value, bytes | bytearray):
        return {"bytearray" if isinstance(value, bytearray) else "bytes": base64.b64encode(bytes(value)).decode()}
    if isinstance(value, complex):
        return {"complex": [encode(float(value.real), keep), encode(float(value.imag), keep)]}
    if isinstance(value, range):
        return {"range": [encode(part, keep) for part in (value.start, value.stop, value.step)]}
    if isinstance(value, Fraction):
        return {"Fraction": [encode(value.numerator, keep), encode(value.denominator, keep)]}
    if isinstance(value, Decimal):
        return {"Decimal": Decimal.__str__(value)}
    if kind in KINDS and getattr(value, "tzinfo", None) is None:
        return {KINDS[kind]: value.isoformat()}
    if isinstance(value, collections.deque):
        return {"deque": [[encode(item, keep) for item in value], value.maxlen]}
    for name in ("Counter", "OrderedDict", "defaultdict"):
        if isinstance(value, getattr(collections, name)):
            return {name: _pairs(dict.items(value), keep)}
    if kind in VIEWS:
        return {VIEWS[kind]: _pairs(value, keep) if VIEWS[kind] == "items" else [encode(item, keep) for item in value]}
    for base, exact in ((int, int.__int__), (float, float.__float__), (str, str.__str__)):
        if isinstance(value, base):
            return encode(exact(value), keep)  # type: ignore[operator, arg-type]
    if isinstance(value, dict):
        return encode(dict(dict.items(value)), keep)
    plain: Any
    for plain in (list, tuple, set, frozenset):
        if isinstance(value, plain):
            return encode(plain(plain.__iter__(value)), keep)
    if isinstance(value, Iterator):
        return keep("iterator", value)
    return keep("function" if callable(value) else "foreign", value)


def decode(value: Any, stand_in: Callable[[str, Any], Any]) -> Any:
    """The value of what `json.loads` returned.

    Args:
        value: what came through the pipe, by whomever it was written.
        stand_in: told a kind (function, iterator, foreign) and its handle; returns the object that stands for it.

    Raises:
        WireError: no value was meant by this.
    """
    if isinstance(value, list):
        return [decode(item, stand_in) for item in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise WireError("a tagged value has one key")
    ((tag, payload),) = value.items()
    try:
        if tag in DECODERS:
            return DECODERS[tag](payload, lambda item: decode(item, stand_in))
        if tag in ("function", "iterator", "foreign"):
            return stand_in(tag, payload)
    except WireError:
        raise
    except (TypeError, ValueError, ArithmeticError, KeyError, IndexError, AttributeError, zlib.error) as error:
        raise WireError(f"not a {tag}: {type(error).__name__}") from error
    raise WireError(f"unknown kind of value {tag!r:.40}")


def _array(dtype: str, shape: list[int], data: str) -> Any:
    import numpy

    if not PLAIN_DTYPE.fullmatch(dtype):
        raise WireError("an array of a kind that does not travel")
    return numpy.frombuffer(base64.b64decode(data), numpy.dtype(dtype)).reshape(shape).copy()


Inner = Callable[[Any], Any]
DECODERS: dict[str, Callable[[Any, Inner], Any]] = {
    "int": lambda p, _: int(p, 16),
    "float": lambda p, _: float(p),
    "complex": lambda p, inner: complex(inner(p[0]), inner(p[1])),
    "bytes": lambda p, _: base64.b64decode(p),
    "bytearray": lambda p, _: bytearray(base64.b64decode(p)),
    "tuple": lambda p, inner: tuple([inner(item) for item in p]),
    "set": lambda p, inner: {inner(item) for item in p},
    "frozenset": lambda p, inner: frozenset([inner(item) for item in p]),
    "dict": lambda p, inner: {inner(k): inner(v) for k, v in p},
    "OrderedDict": lambda p, inner: collections.OrderedDict([(inner(k), inner(v)) for k, v in p]),
    "Counter": lambda p, inner: collections.Counter({inner(k): inner(v) for k, v in p}),
    "defaultdict": lambda p, inner: collections.defaultdict(None, [(inner(k), inner(v)) for k, v in p]),
    "deque": lambda p, inner: collections.deque([inner(item) for item in p[0]], p[1]),
    "keys": lambda p, inner: {inner(item): None for item in p}.keys(),
    "values": lambda p, inner: dict(enumerate([inner(item) for item in p])).values(),
    "items": lambda p, inner: {inner(k): inner(v) for k, v in p}.items(),
    "range": lambda p, inner: range(*[inner(part) for part in p]),
    "Fraction": lambda p, inner: Fraction(inner(p[0]), inner(p[1])),
    "Decimal": lambda p, _: Decimal(p),
    "date": lambda p, _: datetime.date.fromisoformat(p),
    "time": lambda p, _: datetime.time.fromisoformat(p),
    "datetime": lambda p, _: datetime.datetime.fromisoformat(p),
    "array": lambda p, _: _array(*p),
    "table": lambda p, inner: _rows([inner(item) for item in p[0]], *p[1:]),
    "scalar": lambda p, _: _array(p[0], [1], p[1])[0],
}


class Channel:
    """Messages over a descriptor, one side's turn at a time."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def send(self, message: Any) -> None:
        """Write a message.

        Raises:
            WireError: it is too large.
            OSError: nobody listens any more.
        """
        data = json.dumps(message, allow_nan=False).encode()
        if len(data) > MESSAGE_BYTES:
            raise WireError(f"a value of {len(data) >> 20} MiB; the limit is {MESSAGE_BYTES >> 20} MiB")
        rest = memoryview(struct.pack(">I", len(data)) + data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def receive(self) -> Any:
        """Read a message.

        Raises:
            EOFError: the other side has ended.
            WireError: what came is no message.
        """
        (length,) = struct.unpack(">I", self._read(4))
        if length > MESSAGE_BYTES:
            raise WireError(f"a message of {length >> 20} MiB; the limit is {MESSAGE_BYTES >> 20} MiB")
        data = self._read(length)
        try:
            return json.loads(data)
        except (ValueError, RecursionError) as error:
            raise WireError(f"not a message: {type(error).__name__}") from error

    def _read(self, count: int) -> bytes:
        parts = []
        while count:
            try:
                part = os.read(self.descriptor, min(count, 1 << 20))
            except ConnectionResetError:
                part = b""
            if not part:
                raise EOFError("the other side has ended")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)
