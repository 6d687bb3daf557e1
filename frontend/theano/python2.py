"""The names of `theano.compat.six` that programs take to run under Python 2 and 3, as Python 3 has them."""

from __future__ import annotations

import builtins
import configparser
import functools
import pickle
import queue
from collections.abc import Iterator
from io import BytesIO, StringIO
from typing import Any

PY2, PY3 = False, True
string_types, integer_types, class_types = (str,), (int,), (type,)
text_type, binary_type = str, bytes
input, map, zip, range, filter, next = (
    builtins.input,
    builtins.map,
    builtins.zip,
    builtins.range,
    builtins.filter,
    builtins.next,
)
xrange, reduce, cPickle, cStringIO = builtins.range, functools.reduce, pickle, StringIO  # noqa: N816


def iteritems(d: Any, **options: Any) -> Any:
    """An iterator over a dictionary's items."""
    return iter(d.items(**options))


def iterkeys(d: Any, **options: Any) -> Any:
    """An iterator over a dictionary's keys."""
    return iter(d.keys(**options))


def itervalues(d: Any, **options: Any) -> Any:
    """An iterator over a dictionary's values."""
    return iter(d.values(**options))


def b(text: str) -> bytes:
    """The bytes of a literal."""
    return text.encode("latin-1")


def u(text: str) -> str:
    """A literal."""
    return text


def reraise(kind: type, value: Any, traceback: Any = None) -> None:
    """Raises an exception with a traceback of another."""
    raise (kind() if value is None else value).with_traceback(traceback)


def add_metaclass(metaclass: type) -> Any:
    """A decorator that makes a class anew with a metaclass."""

    def made(cls: type) -> Any:
        names = {k: v for k, v in vars(cls).items() if k not in ("__dict__", "__weakref__")}
        return metaclass(cls.__name__, cls.__bases__, names)

    return made


def with_metaclass(meta: Any, *bases: type) -> Any:
    """A base class whose metaclass is `meta`."""
    return meta("base", bases or (object,), {})


def get_unbound_function(unbound: Any) -> Any:
    """A method as a function, which it is."""
    return getattr(unbound, "__func__", unbound)


def get_function_code(function: Any) -> Any:
    """A function's code."""
    return function.__code__


def print_(*args: Any, **options: Any) -> None:
    """`print`."""
    print(*args, **options)


__all__ = [
    "BytesIO",
    "Iterator",
    "PY2",
    "PY3",
    "StringIO",
    "add_metaclass",
    "b",
    "binary_type",
    "cPickle",
    "cStringIO",
    "class_types",
    "configparser",
    "filter",
    "get_function_code",
    "get_unbound_function",
    "input",
    "integer_types",
    "iteritems",
    "iterkeys",
    "itervalues",
    "map",
    "next",
    "print_",
    "queue",
    "range",
    "reduce",
    "reraise",
    "string_types",
    "text_type",
    "u",
    "with_metaclass",
    "xrange",
    "zip",
]
