"""Builds the kernels of the fast paths; everything else about the package is in pyproject.toml.

One library for each instruction set, of which the program picks the best that runs. All of them
are optional: without a compiler, or with one that does not know an instruction set, the
installation goes on and the network takes its plain path
(``densenet121.native.network.kernels`` says so). ``DENSENET121_KERNELS=off`` builds none: the wheel
is then one for every platform.
"""

import copy
import importlib.machinery
import os
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

NATIVE = Path("src/densenet121/native/network")
SHARED = [str(NATIVE.parent / "instruction_set.h")]
AVX2 = ["-mavx2", "-mfma", "-mf16c"]
AVX512 = ["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mfma", "-mf16c"]
X86_FLAGS = {
    "amx": [*AVX512, "-mavx512bf16", "-mamx-tile", "-mamx-bf16", "-mamx-int8"],
    "avx512_bf16": [*AVX512, "-mavx512bf16", "-mavx512vnni"],
    "avx512": AVX512,
    "avx2_vnni": [*AVX2, "-mavxvnni"],
    "avx2": AVX2,
}
ARM_FLAGS = {
    "neon_bf16": ["-march=armv8.2-a+dotprod+bf16+i8mm"],
    "neon_dotprod": ["-march=armv8.2-a+dotprod"],
    "neon": [],
}

IMAGES = Path("src/densenet121/native/images")
# The image kernel rounds where numpy and OpenCV do: no product may be fused with a sum unasked.
IMAGES_FLAGS = {
    "avx2": ["-ffp-contract=off", "-mavx2", "-mfma", "-mf16c", "-mbmi", "-mbmi2"],
    "portable": ["-ffp-contract=off", "-DDENSENET121_PORTABLE"],
}
# With flags of one's own, as the sanitizers', what they say about debug information holds.
# setuptools takes CFLAGS for C alone.
OWN = os.environ.get("CXXFLAGS", "").split()
DEBUG = [] if any(flag.startswith("-g") for flag in OWN) else ["-g0"]
COMMON = [*DEBUG, "-std=c++17", "-fno-math-errno", "-fvisibility=hidden", "-Wno-psabi"]
# gcc takes its own intrinsics for uses of uninitialised values, and two copies of 16 bytes in a
# row, as those of AMX's results, for one of 32 from a register of 16.
FALSE_WARNINGS = ["-Wno-uninitialized", "-Wno-maybe-uninitialized"]
FALSE_WARNINGS += ["-Wno-array-bounds", "-Wno-stringop-overread"]


def optimisation(flags: list[str]) -> str:
    """-O3, or what ``DENSENET121_OPTIMISE`` says, such as -O1.

    With ``own`` it is -O3 for what this processor can run, and -O0 for the rest. That is for a
    gate, which compiles the others to see that they can be; without optimisation it takes a sixth
    of the time. Such an installation is slow on a better processor.
    """
    wanted = os.environ.get("DENSENET121_OPTIMISE", "-O3")
    if wanted != "own":
        return wanted
    has = Path("/proc/cpuinfo").read_text(encoding="utf-8").replace("_", "").split()
    needed = {flag[2:].replace("-", "") for flag in flags if flag.startswith(("-mavx", "-mamx"))}
    return "-O3" if needed.issubset(has) else "-O0"


def extension(name: str, flags: list[str]) -> Extension:
    """The network's kernels for one instruction set.

    Compiled with OpenMP but not linked to it: they take the OpenMP that torch brings.
    """
    return Extension(
        f"densenet121.native.network._{name}",
        sources=[str(NATIVE / "kernels.cpp")],
        depends=SHARED + [str(header) for header in sorted(NATIVE.glob("*.h"))],
        extra_compile_args=[optimisation(flags), *COMMON, "-fopenmp", *FALSE_WARNINGS, *flags],
        optional=True,
    )


def images_extension(name: str) -> Extension:
    """The image kernel for one instruction set."""
    return Extension(
        f"densenet121.native.images._{name}",
        sources=[str(IMAGES / "images.cpp")],
        depends=SHARED + [str(header) for header in sorted(IMAGES.glob("*.h"))],
        extra_compile_args=[optimisation(IMAGES_FLAGS[name]), *COMMON, *IMAGES_FLAGS[name]],
        optional=True,
    )


class BuildKernels(build_ext):
    """Compiles each library's objects in a folder of its own.

    The libraries share their sources. In one folder their objects would have the same name, and
    those that are built at the same time would overwrite each other's.

    They are no modules of Python's, so that their names and the wheel have no version of it.
    """

    def finalize_options(self) -> None:
        """One compiler a core. Editable installations lose an option that is given to `setup`."""
        build_ext.finalize_options(self)
        self.parallel = self.parallel or os.cpu_count() or 1

    def get_ext_filename(self, fullname: str) -> str:
        """The path of a library, without Python's version."""
        suffix = importlib.machinery.EXTENSION_SUFFIXES[-1]
        return str(Path(*fullname.split("."))) + suffix

    def run(self) -> None:
        """Build all, and remove those that were built here when their names had a version."""
        build_ext.run(self)
        if self.inplace or self.editable_mode:
            for old in NATIVE.parent.glob("*/_*.cpython-*"):
                old.unlink()

    def build_extension(self, ext: Extension) -> None:
        """Build one library as setuptools does, in a copy of this command with its own folder."""
        own = copy.copy(self)
        own.build_temp = str(Path(self.build_temp) / ext.name)
        build_ext.build_extension(own, ext)


class AnyPython(bdist_wheel):
    """A wheel with libraries is for one platform and every version of Python."""

    def get_tag(self) -> tuple[str, str, str]:
        """Version of Python, binary interface and platform, as in the wheel's name."""
        _, _, target = bdist_wheel.get_tag(self)
        return "py3", "none", target


# As "linux-aarch64"; _PYTHON_HOST_PLATFORM says it where the compiler is a cross compiler.
target = sysconfig.get_platform().lower()
is_x86, is_arm = target.endswith(("x86_64", "amd64")), target.endswith(("aarch64", "arm64"))
libraries = [
    *(extension(name, flags) for name, flags in X86_FLAGS.items() if is_x86),
    *(extension(name, flags) for name, flags in ARM_FLAGS.items() if is_arm),
    extension("portable", ["-DDENSENET121_PORTABLE"]),
    *(images_extension(name) for name in IMAGES_FLAGS if is_x86 or name == "portable"),
]
setup(
    cmdclass={"build_ext": BuildKernels, "bdist_wheel": AnyPython},
    ext_modules=[] if os.environ.get("DENSENET121_KERNELS") == "off" else libraries,
)
