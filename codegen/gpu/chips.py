"""What is known of NVIDIA's GPUs, and the target that kernels are written for."""

from __future__ import annotations

from typing import NamedTuple

from tcc.codegen.emit import VecType
from tcc.codegen.target import Target

TRIPLE = "nvptx64-nvidia-cuda"

# LLVM ends the process on a pair of chip and PTX version that do not go together, so nothing else may be asked for
CHIPS = {
    "sm_70": "+ptx60",
    "sm_75": "+ptx63",
    "sm_80": "+ptx70",
    "sm_86": "+ptx71",
    "sm_89": "+ptx78",
    "sm_90": "+ptx78",
    "sm_90a": "+ptx80",
    "sm_100": "+ptx86",
    "sm_120": "+ptx87",
}
# PTX versions, and the CUDA versions that brought them
DRIVERS = {60: 9000, 63: 10000, 70: 11000, 71: 11010, 78: 11080, 80: 12000, 86: 12070, 87: 12080}
WARP = 32
SHARED = 48 << 10  # bytes of shared memory that any kernel may have without asking


class Lane(Target):
    """One thread of a GPU: vectors have one lane."""

    def vector(self, elem: str) -> VecType:
        return VecType(elem)


LANE = Lane(TRIPLE, "", "", 8)


class Chip(NamedTuple):
    name: str

    @property
    def features(self) -> str:
        return CHIPS[self.name]

    @property
    def driver(self) -> int:
        """The least CUDA version, as 11080, of a driver that takes its PTX."""
        return DRIVERS[int(self.features.removeprefix("+ptx"))]

    @property
    def sm(self) -> int:
        """90 of sm_90a."""
        return int("".join(c for c in self.name if c.isdigit()))

    @property
    def specific(self) -> bool:
        """Whether it is sm_90a, with the instructions that later chips lack."""
        return self.name == "sm_90a"


def chip(name: str) -> Chip:
    """A GPU architecture by name; ValueError says which there are."""
    if name not in CHIPS:
        raise ValueError(f"no code is made for {name!r} (there are {', '.join(CHIPS)})")
    return Chip(name)
