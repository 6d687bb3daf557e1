"""`tcc.config`: what the user may choose.  Code wins over TCC_FLAGS, which wins over ~/.tccrc."""

from __future__ import annotations

import configparser
import functools
import os
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from tcc.ir import knobs


class Flag(NamedTuple):
    """One setting: its default, and what it may be (a tuple of words, or a type)."""

    default: Any
    allowed: tuple[str, ...] | type
    doc: str


OPTIMIZERS = (
    "default",
    "fast_run",
    "fast_compile",
    "merge",
    "None",
    "o1",
    "o2",
    "o3",
    "o4",
    "unsafe",
    "stabilize",
)

FLAGS: dict[str, Flag] = {
    "floatX": Flag("float64", ("float64", "float32", "float16"), "dtype of floats that name none"),
    "contexts": Flag("", str, "names for devices, as in dev0->cuda0;dev1->cuda1"),
    "device": Flag(
        "cpu", str, "where functions run: cpu, cuda or cuda0, cuda1, ..., emulator, a name of contexts"
    ),
    "mode": Flag("Mode", str, "how functions are compiled unless `mode` says otherwise"),
    "optimizer": Flag(
        "fast_run", OPTIMIZERS, "with the mode `Mode`: None, fast_compile and merge interpret, others compile"
    ),
    "cast_policy": Flag("custom", ("custom", "numpy+floatX"), "dtypes of Python numbers in expressions"),
    "int_division": Flag("int", ("int", "raise", "floatX"), "accepted for Theano's sake"),
    "on_unused_input": Flag("raise", ("raise", "warn", "ignore"), "what an unused input of a function does"),
    "allow_input_downcast": Flag(None, (), "whether inputs may lose precision: None, True or False"),
    "compute_test_value": Flag(
        "off", ("off", "ignore", "warn", "raise"), "whether tag.test_value is carried along"
    ),
    "warn_float64": Flag("ignore", ("ignore", "warn", "raise"), "what making a float64 variable does"),
    "exception_verbosity": Flag("low", ("low", "high"), "accepted for Theano's sake"),
    "tf32": Flag(
        False,
        bool,
        "whether functions made from then on round operands of float32 products to tf32 on GPUs, which is faster",
    ),
    "profile": Flag(False, bool, "calls of functions are counted and timed; see tcc.profiling"),
}

# Flags of Theano that programs set and read; they mean nothing here.  A name with members is a group, whose other members are
# None until they are set.
HISTORIC: dict[str, Any] = {
    "allow_gc": True,
    "assert_no_cpu_op": "ignore",
    "base_compiledir": "",
    "blas.ldflags": "",
    "cache_optimizations": False,
    "check_input": True,
    "check_stack_trace": "off",
    "cmodule": {},
    "compile": {},
    "compiledir": "",
    "compute_test_value_opt": "off",
    "conv.assert_shape": False,
    "ctc.root": "",
    "cuda": {},
    "cxx": "",
    "cycle_detection": "regular",
    "DebugMode": {},
    "deterministic": "default",
    "dnn.conv.algo_bwd": "none",
    "dnn.conv.algo_bwd_data": "none",
    "dnn.conv.algo_bwd_filter": "none",
    "dnn.conv.algo_fwd": "small",
    "dnn.conv.precision": "as_input_f32",
    "dnn.enabled": "auto",
    "enable_initial_driver_test": True,
    "experimental": {},
    "floatx": "",
    "force_device": False,
    "gcc.cxxflags": "",
    "gpuarray": {},
    "gpuelemwise": {},
    "init_gpu_device": "",
    "lib.amdlibm": False,
    "lib.cnmem": 0.0,
    "linker": "cvm",
    "magma": {},
    "metaopt": {},
    "NanGuardMode.big_is_error": True,
    "NanGuardMode.inf_is_error": True,
    "NanGuardMode.nan_is_error": True,
    "nocleanup": False,
    "numpy": {},
    "nvcc": {},
    "on_opt_error": "warn",
    "on_shape_error": "warn",
    "openmp": False,
    "openmp_elemwise_minsize": 200000,
    "optdb": {},
    "optimizer_excluding": "",
    "optimizer_including": "",
    "optimizer_requiring": "",
    "optimizer_verbose": False,
    "pickle_test_value": True,
    "pool": {},
    "print_active_device": True,
    "print_global_stats": False,
    "print_test_value": False,
    "profile_memory": False,
    "profile_optimizer": False,
    "profiling": {},
    "reoptimize_unpickled_function": False,
    "scan.allow_gc": False,
    "scan.allow_output_prealloc": True,
    "scan.debug": False,
    "scanOp_pushout_output": False,
    "tensor.cmp_sloppy": 0,
    "tensor.local_elemwise_fusion": True,
    "traceback.compile_limit": 0,
    "traceback.limit": 8,
    "unittests.rseed": "666",
    "unpickle_function": True,
    "vm.lazy": None,
    "warn": {},
}
HISTORIC_NAMES = {name.split(".")[0] for name in HISTORIC}
GROUPS = {name.split(".")[0] for name, value in HISTORIC.items() if "." in name or value == {}}
TRUE, FALSE = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


class TheanoConfigParser:
    """Flags as attributes; programs match its name in the message about an unknown flag."""

    def __init__(self) -> None:
        values = {name: flag.default for name, flag in FLAGS.items()}
        object.__setattr__(self, "_values", values)
        object.__setattr__(self, "_historic", {})
        for name, text in sorted(_given(), key=lambda item: item[0] == "device"):  # which contexts may name
            self.take(name, text, f"TCC_FLAGS or {_file()}")

    def take(self, name: str, text: str, source: str) -> None:
        """Sets a flag to what `source` says; an unknown one is a warning, a wrong value ValueError."""
        if name in FLAGS:
            try:
                setattr(self, name, _read(FLAGS[name], text))
            except ValueError as e:
                e.add_note(f"{source} says {name}={text}")
                raise
            return
        if name.split(".")[0] not in HISTORIC_NAMES:
            warnings.warn(f"{source}: unknown flag {name!r} (known: {', '.join(FLAGS)})", stacklevel=2)
        default = HISTORIC.get(name)
        self._historic[name] = _word(text) if isinstance(default, bool) else text

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name in GROUPS:
            return Group(name, self._historic)
        if name in HISTORIC:
            return self._historic.get(name, HISTORIC[name])
        raise _unknown(name)

    def __setattr__(self, name: str, value: Any) -> None:
        flag = FLAGS.get(name)
        if flag is None:
            if name in HISTORIC_NAMES:
                self._historic[name] = value
                return
            raise _unknown(name)
        _check(name, flag, value)
        if name == "device":
            device_name(value, self.contexts)
        elif name == "contexts":
            contexts_of(value)
        self._values[name] = value

    def __dir__(self) -> list[str]:
        return [*FLAGS, "change_flags"]

    def __str__(self) -> str:
        return "\n".join(
            f"{name} ({flag.allowed if isinstance(flag.allowed, tuple) else flag.allowed.__name__})\n"
            f"    Doc:  {flag.doc}\n    Value:  {self._values[name]}\n"
            for name, flag in FLAGS.items()
        )

    def change_flags(self, **flags: Any) -> change_flags:
        """As `tcc.change_flags`."""
        return change_flags(**flags)


def _unknown(name: str) -> AttributeError:
    return AttributeError(
        f"'TheanoConfigParser' object has no attribute '{name}' (tcc.config has {', '.join(FLAGS)})"
    )


class Group:
    """A family of Theano's flags, such as `config.nvcc`; it remembers what it is given."""

    def __init__(self, name: str, values: dict[str, Any]) -> None:
        object.__setattr__(self, "_group", (name, values))

    def __getattr__(self, name: str) -> Any:
        group, values = self._group
        if name.startswith("__"):
            raise AttributeError(name)
        key = f"{group}.{name}"
        if any(flag.startswith(f"{key}.") for flag in HISTORIC):
            return Group(key, values)
        return values.get(key, HISTORIC.get(key))

    def __setattr__(self, name: str, value: Any) -> None:
        group, values = self._group
        values[f"{group}.{name}"] = value


def _check(name: str, flag: Flag, value: Any) -> None:
    if name == "allow_input_downcast":
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"config.{name} is None, True or False, got {value!r}")
    elif isinstance(flag.allowed, tuple):
        if value not in flag.allowed:
            raise ValueError(
                f"Invalid value ({value!r}) for configuration variable {name!r}: one of {', '.join(flag.allowed)}"
            )
    elif not isinstance(value, flag.allowed) and name != "mode":
        raise ValueError(f"config.{name} takes a {flag.allowed.__name__}, got {value!r}")


def _read(flag: Flag, text: str) -> Any:
    return _word(text) if flag.allowed is bool or flag.default is None else text


def _word(text: str) -> Any:
    word = text.lower()
    return True if word in TRUE else False if word in FALSE else None if word == "none" else text


def _file() -> Path:
    return Path(os.environ.get("TCCRC") or os.path.expanduser("~/.tccrc"))  # users without a home have none


def _given() -> Iterator[tuple[str, str]]:
    """Flags of ~/.tccrc, then of TCC_FLAGS, which come later and so win."""
    path = _file()
    if os.access(path, os.R_OK) and path.is_file():  # another user's home is often closed
        parser = configparser.ConfigParser()
        parser.optionxform = str  # type: ignore[assignment,method-assign]
        parser.read(path)
        for section in parser.sections():
            for key, text in parser.items(section):
                yield (key if section == "global" else f"{section}.{key}"), text
    yield from knobs.FLAGS.get().items()


_DEVICE = re.compile(r"(?:cuda|gpu)(\d*)")
_DEVICES = "cpu, cuda0 (cuda1, ...), emulator"


def contexts_of(text: str) -> dict[str, str]:
    """The names that `config.contexts` gives to devices; ValueError if it cannot be read, or if a name is given twice, to what is no
    device, or to another device than it says."""
    pairs = [item.split("->") for item in text.split(";") if item.strip()]
    if any(len(pair) != 2 for pair in pairs):
        raise ValueError(f"contexts are written dev0->cuda0;dev1->cuda1, got {text!r}")
    given: dict[str, str] = {}
    for name, device in ((name.strip(), device.strip()) for name, device in pairs):
        real = _real_device(device)
        if real is None:
            raise ValueError(f"contexts: no device {device!r} for {name!r} (there are {_DEVICES})")
        if given.get(name, device) != device:
            raise ValueError(f"contexts: {name!r} is both {given[name]!r} and {device!r}")
        if _real_device(name) not in (None, real):
            raise ValueError(f"contexts: {name!r} is a device itself, so it cannot name {device!r}")
        given[name] = device
    return given


def device_name(name: str, contexts: str | None = None) -> str:
    """`cpu`, `emulator` or `cuda` with a number, for what the user may write; ValueError for a name that means no device."""
    given = contexts_of(config.contexts if contexts is None else contexts)
    real = _real_device(given.get(name, name))
    if real is None:
        raise ValueError(f"no device {name!r} (there are {', '.join((_DEVICES, *given))})")
    return real


def _real_device(name: str) -> str | None:
    if name in ("cpu", "emulator"):
        return name
    found = _DEVICE.fullmatch(name)
    return f"cuda{found[1] or 0}" if found else None


def wanted_device(name: str | None, targets: Sequence[str | None] = ()) -> str:
    """The device for a function that is to run on `name`: without one that of `config.device`, or else, if that is the CPU, the
    first of the `targets` of shared variables."""
    if name is None:
        name = str(config.device)
        if device_name(name) == "cpu":
            name = next((t for t in targets if t is not None and device_name(t) != "cpu"), name)
    return name


config = TheanoConfigParser()


def assign(name: str, value: Any) -> None:
    """Sets a flag, whose name may be `group.member`."""
    group, _, member = name.rpartition(".")
    setattr(attrgetter(group)(config) if group else config, member, value)


class change_flags:
    """Sets flags, by keywords or (name, value) pairs, for a `with` block or for the calls of the function that it decorates."""

    def __init__(self, args: Iterable[tuple[str, Any]] = (), **flags: Any) -> None:
        self.flags = {**dict(args), **flags}
        self._saved: list[dict[str, Any]] = []

    def __enter__(self) -> change_flags:
        self._saved.append({name: attrgetter(name)(config) for name in self.flags})
        try:
            for name, value in self.flags.items():
                assign(name, value)
        except Exception:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for name, value in self._saved.pop().items():
            assign(name, value)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return wrapped
