"""Theano's flags: ~/.theanorc and THEANO_FLAGS, read when `theano` is imported."""

from __future__ import annotations

import configparser
import os
from collections.abc import Callable, Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any

from tcc.ir import knobs
from tcc.settings import FLAGS, GROUPS, HISTORIC, HISTORIC_NAMES, TheanoConfigParser, assign
from tcc.settings import config as settings

NAMES = {name.lower(): name for name in (*HISTORIC, *FLAGS)}  # in files case does not matter


class Config(TheanoConfigParser):
    """`theano.config`: `tcc.config`, but that a program cannot change the device."""

    def __init__(self) -> None:
        object.__setattr__(self, "__dict__", settings.__dict__)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "device":
            raise Exception(
                "Can't change the value of this config parameter after initialization! "
                f"(THEANO_FLAGS=device={value}, or tcc.config.device, says where functions run)"
            )
        super().__setattr__(name, value)


config = Config()


class Variable:
    """A flag as Theano's own list has it: its name, and how it is read and set."""

    def __init__(self, fullname: str) -> None:
        self.fullname = fullname

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        return attrgetter(self.fullname)(config)

    def __set__(self, instance: Any, value: Any) -> None:
        assign(self.fullname, value)


variables = [Variable(name) for name in (*FLAGS, *HISTORIC)]


def read() -> None:
    """Sets `tcc.config` by what THEANO_FLAGS says, or else ~/.theanorc (THEANORC: other files); TCC_FLAGS wins over both.

    An unknown flag is a warning, a wrong value ValueError, as in Theano.  A GPU that cannot be used is a warning, too.
    """
    own = knobs.FLAGS.get()
    found = {name: (source, text) for source, name, text in _given() if name not in own}
    for name in sorted(found, key=lambda name: name == "device"):  # which contexts may name
        source, text = found[name]
        if name == "device" and text != "cpu":
            from tcc.theano.legacy import use_gpu

            use_gpu(text)
        else:
            settings.take(name, text, source)


def _given() -> Iterator[tuple[str, str, str]]:
    """Where it stands, the flag, its value: the later ones win."""
    paths = os.environ.get("THEANORC", "~/.theanorc").split(os.pathsep)
    parser = configparser.RawConfigParser()
    read = parser.read(
        [p for p in map(os.path.expanduser, paths) if os.access(p, os.R_OK) and Path(p).is_file()]
    )
    for section in parser.sections():
        for key, text in parser.items(section):
            yield ", ".join(read), NAMES.get(key, key) if section == "global" else f"{section}.{key}", text
    for pair in os.environ.get("THEANO_FLAGS", "").split(","):
        name, equals, text = pair.partition("=")
        if equals:
            yield "THEANO_FLAGS", name.strip(), text.strip()


# -- flags of programs -------------------------------------------------------------------------------------------------


class Param:
    """What a program's own flag is when nobody sets it, and how its text is read."""

    def __init__(self, default: Any, read: Callable[[str], Any] = str) -> None:
        self.default, self.read = default, read


def StrParam(default: Any, *_: Any, **__: Any) -> Param:  # noqa: N802
    """A flag that is text."""
    return Param(default)


def IntParam(default: Any, *_: Any, **__: Any) -> Param:  # noqa: N802
    """A flag that is an integer."""
    return Param(default, int)


def FloatParam(default: Any, *_: Any, **__: Any) -> Param:  # noqa: N802
    """A flag that is a float."""
    return Param(default, float)


def BoolParam(default: Any, *_: Any, **__: Any) -> Param:  # noqa: N802
    """A flag that is True or False."""
    return Param(default, lambda text: text.lower() in ("1", "true", "yes", "on"))


def EnumStr(default: str, *options: str, **_: Any) -> Param:  # noqa: N802
    """A flag that is one of several words; ValueError for others."""

    def read(text: str) -> str:
        if text not in (default, *options):
            raise ValueError(f"the flag must be one of {', '.join((default, *options))}, got {text!r}")
        return text

    return Param(default, read)


def AddConfigVar(name: str, doc: str, configparam: Param, root: Any = config, in_c_key: bool = True) -> None:  # noqa: N802
    """Adds a program's own flag to `config`; what THEANO_FLAGS or ~/.theanorc says of it counts."""
    given = config._historic
    HISTORIC[name] = configparam.default
    HISTORIC_NAMES.add(name.split(".")[0])
    if "." in name:
        GROUPS.add(name.split(".")[0])
    if name in given:
        given[name] = configparam.read(str(given[name]))
