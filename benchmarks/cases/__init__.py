"""The cases by topic.  A topic's module holds CASES and, for each library that can do some of them, a function of that
library's name, which imports it and gives {kind: f}; `reference` may give those that are checked against.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from types import ModuleType

from benchmarks.case import Case, Function, Functions, NotYet

TOPICS = (
    "maps",
    "products",
    "rows",
    "ordering",
    "convolutions",
    "classifiers",
    "networks",
    "language",
    "recurrent",
    "densities",
    "linalg",
)
MODULES: dict[str, ModuleType] = {topic: import_module(f"benchmarks.cases.{topic}") for topic in TOPICS}
CASES: tuple[Case, ...] = tuple(
    replace(case, topic=topic) for topic, module in MODULES.items() for case in module.CASES
)
_BY_NAME = {case.name: case for case in CASES}
assert len(_BY_NAME) == len(CASES), "two cases share a name"


def named(name: str) -> Case:
    return _BY_NAME[name]


def function_of(library: str, case: Case) -> Function:
    """`library`'s function for the case; NotYet if its topic has none."""
    functions: Functions = getattr(MODULES[case.topic], library, dict)()
    if case.kind not in functions:
        raise NotYet(f"{library} has no {case.kind}")
    function: Function = functions[case.kind]
    return function
