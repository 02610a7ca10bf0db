"""The kernels' libraries: every one that runs here computes the same, and none is needed."""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest

from densenet121 import native
from densenet121.native import processor
from densenet121.native.library import load_library
from densenet121.native.network import INSTRUCTION_SETS, Kernels, kernels
from densenet121.native.network.structures import STRUCTURES, VERSION
from densenet121.native.processor import capabilities

from helpers.commands import REPOSITORY, environment
from helpers.forking import Forked
from helpers.weights import write_weights


def with_kernels(
    name: str, *command: str, folder: Path = REPOSITORY
) -> "subprocess.CompletedProcess[str]":
    process = Forked(command, environment(DENSENET121_KERNELS=name), folder)
    return process.finished(timeout_seconds=900)  # with a sanitizer on a busy machine


def what_runs(name: str) -> str:
    code = "from densenet121.native.network import kernels; print(kernels())"
    return with_kernels(name, "-c", code).stdout.strip()


# What no processor with kernels of its own runs takes half a minute, and is a slow test.
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow) if name == "portable" else name
        for name in INSTRUCTION_SETS
    ],
)
def test_every_instruction_set_passes_the_tests_of_the_fast_paths(name: str) -> None:
    if isinstance(best := kernels(), Kernels) and best.instruction_set == name:
        pytest.skip(f"{name} is what all other tests run")
    found = what_runs(name)
    if not found.startswith("Kernels"):
        pytest.skip(found)
    result = with_kernels(
        name,
        *("-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/network/test_fused_block.py"),
        *("tests/network/test_fused_inference.py", "tests/network/test_fused_classifier.py"),
        *("tests/network/test_fused_network.py", "tests/network/test_inference_bf16.py"),
        *("tests/network/test_training_bf16.py", "-k"),
        "seam or frozen or bf16 or float32 or odd or infer or the_linear_layer or a_row",
        *("-m", "not slow"),
    )
    assert result.returncode == 0, result.stdout[-2000:]


def test_without_kernels_the_plain_network_runs_and_says_why() -> None:
    code = (
        "import logging, sys, warnings; logging.basicConfig(level=20, stream=sys.stdout);"
        "warnings.simplefilter('error');"
        "import torch; from densenet121 import densenet121;"
        "net = densenet121(3); net(torch.randn(2, 3, 64, 64)); net(torch.randn(2, 3, 64, 64))"
    )
    result = with_kernels("off", "-c", code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("use the plain implementation") == 1
    assert "DENSENET121_KERNELS is off" in result.stdout


@pytest.mark.parametrize(
    "command",
    [
        "predict {images}/val --pretrained {weights}",
        "eval --data_dir {images} --pretrained {weights}",
        "train --data_dir {images}",
        "probe --data_dir {images} --pretrained {weights}",
        "export --pretrained {weights} --data_dir {images} --output network.onnx",
        "bench infer",
    ],
)
def test_kernels_of_an_unknown_name_are_refused_before_anything_is_written(
    command: str, image_folder: Path, tmp_path: Path
) -> None:
    weights = write_weights(tmp_path / "weights.safetensors")
    given = command.format(images=image_folder, weights=weights).split()
    result = with_kernels("sse9", "-m", "densenet121", *given, folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr == (
        'densenet121: DENSENET121_KERNELS is "sse9"; it must be one of off, '
        f"{', '.join(INSTRUCTION_SETS)}, or unset\n"
    )
    assert list(tmp_path.iterdir()) == [weights]


def test_unknown_name_is_named_with_what_is_allowed() -> None:
    assert what_runs("sse9") == (
        'DENSENET121_KERNELS is "sse9"; it must be one of off, '
        f"{', '.join(INSTRUCTION_SETS)}, or unset"
    )


def test_this_machine_s_best_is_taken() -> None:
    found = kernels()
    if isinstance(found, str):
        pytest.skip(found)
    assert isinstance(found, Kernels)
    wanted = os.environ.get("DENSENET121_KERNELS") or next(
        name for name, needed in INSTRUCTION_SETS.items() if capabilities().issuperset(needed)
    )
    assert found.instruction_set == wanted


def test_capabilities_are_those_that_the_kernel_lists() -> None:
    if not (listed := Path("/proc/cpuinfo")).exists():
        pytest.skip("not Linux")
    flags = set(listed.read_text().split())
    on_x86 = {"avx2": "avx2", "f16c": "f16c", "avx512_f": "avx512f"}
    on_x86 |= {name: name for name in ("avx512_bf16", "avx512_vnni", "avx_vnni")}
    on_arm = {name: name for name in ("asimd", "atomics", "asimddp", "i8mm", "bf16")}
    names = on_x86 if platform.machine() == "x86_64" else on_arm
    assert {n for n in names if n in capabilities()} == {n for n, f in names.items() if f in flags}


LIBRARIES = sorted(Path(native.__file__).parent.glob("network/_*.so"))


def test_a_library_under_another_s_name_is_refused(tmp_path: Path) -> None:
    if not (path := next((path for path in LIBRARIES if "_portable." in path.name), None)):
        pytest.skip("not built (no C++ compiler at installation?)")
    shutil.copy(path, tmp_path / path.name.replace("_portable.", "_amx."))
    assert "was built for portable; install the package again" in str(
        load_library(tmp_path, "amx", VERSION, STRUCTURES)
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="names of x86")
def test_without_torchs_list_the_processor_is_known_by_that_of_linux() -> None:
    """torch 2.10 has no list; then all but the portable kernels were missing."""
    if not Path("/proc/cpuinfo").exists():
        pytest.skip("not Linux")
    needed = {name for names in INSTRUCTION_SETS.values() for name in names} | {"bmi", "bmi2"}
    needed -= {"asimd", "atomics", "asimdrdm", "asimddp", "bf16", "i8mm"}  # of ARM
    assert processor._listed_by_linux() & needed == capabilities() & needed
