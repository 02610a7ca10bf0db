"""The files that fuzzing guided by coverage begins with; ``make fuzz-coverage`` finds more."""

import io
import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest

from campaigns import guided, image_cases, request_cases
from campaigns.guided_build import build, find_clang
from campaigns.guided_cases import READERS, attempt, reader_of, with_right_sums


@pytest.mark.parametrize("name", READERS)
def test_every_kept_file_is_read_or_refused(name: str, tmp_path: Path) -> None:
    if name == "requests":
        pytest.importorskip("fastapi")
    reader = reader_of(name)
    reader.load(tmp_path)
    kept = guided.kept_corpus(name)
    assert kept
    try:
        for data in kept:
            attempt(reader, data)
    finally:
        request_cases.close()


def test_every_kept_jpeg_is_read_as_libjpeg_reads_it() -> None:
    outcomes = {image_cases.run(("jpeg", data[:-32])) for data in guided.kept_corpus("jpeg")}
    assert "jpeg read" in outcomes


def test_the_kept_files_are_few_kilobytes() -> None:
    files = list(guided.CORPORA.iterdir())
    assert {file.stem for file in files} == {"jpeg", *READERS}
    assert sum(file.stat().st_size for file in files) < 150_000


def test_a_tar_with_right_sums_is_one() -> None:
    """What the sums would hide is reached: a changed name."""
    (data, *_) = reader_of("tars").seeds()
    changed = with_right_sums(b"ax" + data[2:])
    with tarfile.open(fileobj=io.BytesIO(changed + bytes(1024))) as tar:
        assert tar.getnames()[0] == "axt/1.png"


def test_the_result_has_executions_edges_and_faults() -> None:
    said = "#7 NEW cov: 12 ft: 3\n#9 DONE cov: 15 ft: 4\nstat::number_of_executed_units: 9\n"
    assert guided.result_of(0, said) == {"executions": 9, "edges": 15, "faults": [], "said": ""}
    said += "Test unit written to kept/tars-crash-1\n"
    assert guided.result_of(77, said)["faults"] == ["kept/tars-crash-1"]
    with pytest.raises(RuntimeError, match="No module"):
        guided.result_of(1, "No module named 'atheris'")


@pytest.mark.slow
@pytest.mark.skipif(find_clang() is None, reason="needs clang")
def test_a_wrong_bound_in_the_image_kernel_is_found(tmp_path: Path) -> None:
    """The campaign itself: with one bound off by one it has a fault within seconds."""
    from campaigns.guided_build import _KERNEL

    clang = find_clang()
    assert clang
    native = tmp_path / "native"
    (native / "images").mkdir(parents=True)
    for file in (*_KERNEL.glob("*.*"), _KERNEL.parent / "instruction_set.h"):
        where = native / "images" if file.parent == _KERNEL else native
        if file.suffix in (".h", ".cpp"):
            (where / file.name).write_bytes(file.read_bytes())
    source = native / "images" / "images.cpp"
    right = "first <= all - count;"
    assert right in source.read_text()
    source.write_text(source.read_text().replace(right, "first <= all - count + 1;"))
    with zipfile.ZipFile(guided.CORPORA / "jpeg.zip") as kept:
        kept.extractall(tmp_path / "seeds")
    program = build(clang, tmp_path / "built", native / "images")
    done = subprocess.run(
        [program, "-seed=1", "-runs=100000", f"-artifact_prefix={tmp_path}/", tmp_path / "seeds"],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    assert done.returncode != 0 and "Test unit written" in done.stderr, done.stderr[-2000:]
