"""One process at a time writes into a folder."""

import errno
import fcntl
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from densenet121.commands.study import study
from densenet121.config import EvalConfig, StudyConfig
from densenet121.engine.evaluate import evaluate
from densenet121.engine.train import train
from densenet121.tasks import SingleLabel
from densenet121.utils.errors import InputError
from densenet121.utils.locks import locked

from helpers.commands import no_file_beyond
from helpers.tables import write_class_table
from helpers.training import train_config


def test_a_folder_has_one_owner_until_it_ends_or_is_killed(tmp_path: Path) -> None:
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        with locked(tmp_path, "output_dir"):
            os.write(write, b"x")
            signal.pause()
    assert os.read(read, 1) == b"x"
    message = rf"`output_dir` {tmp_path}: process {child} on \S+ writes into it; wait until"
    for _ in range(2):  # a refusal changes nothing
        with pytest.raises(InputError, match=message), locked(tmp_path, "output_dir"):
            pass
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    for _ in range(2):
        with locked(tmp_path, "output_dir"):
            assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()
        assert list(tmp_path.iterdir()) == []
    os.close(read)
    os.close(write)


def test_a_second_run_or_study_in_a_folder_is_refused(image_folder: Path, tmp_path: Path) -> None:
    with locked(tmp_path, "output_dir"):
        with pytest.raises(InputError, match=f"process {os.getpid()} on .* writes into it"):
            train(train_config(image_folder, tmp_path, max_epoch=1))
        data = str(write_class_table(tmp_path / "data", 6))
        with pytest.raises(InputError, match=f"process {os.getpid()} on .* writes into it"):
            study(StudyConfig(data_dir=data, run_dir=str(tmp_path), folds=2, stratify=True))
        assert {file.name for file in tmp_path.iterdir()} == {".lock", "data"}
    train(train_config(image_folder, tmp_path, max_epoch=1))
    assert not (tmp_path / ".lock").exists()


def test_a_refused_run_or_study_leaves_the_file_that_the_other_is_writing(
    image_folder: Path, tmp_path: Path
) -> None:
    data = str(write_class_table(tmp_path / "data", 6))
    writing = tmp_path / ".0-1_3.ckpt.99999999.tmp"  # by a host or container with other processes
    with locked(tmp_path, "output_dir"):
        writing.touch()
        with pytest.raises(InputError, match="writes into it"):
            train(train_config(image_folder, tmp_path, max_epoch=1))
        with pytest.raises(InputError, match="writes into it"):
            study(StudyConfig(data_dir=data, run_dir=str(tmp_path), folds=2, stratify=True))
        assert writing.exists()
    with locked(tmp_path, "output_dir"):  # its owner has been killed
        assert not writing.exists()


def evaluation_into(folder: Path, images: Path, run: Path) -> EvalConfig:
    """An evaluation of weights that are trained for it into ``run``."""
    weights = train(train_config(images, run, max_epoch=1)).folder
    return EvalConfig(
        data_dir=str(images / "val"),
        pretrained=str(weights / "last.safetensors"),
        output_dir=str(folder),
    )


def test_an_evaluation_in_the_folder_of_another_is_refused_and_leaves_its_files(
    image_folder: Path, tmp_path: Path
) -> None:
    """Two would share a log, and the predictions of one would lie beside the numbers of the other.

    The one that writes may be a training run on another host.
    """
    folder = tmp_path / "eval"
    config = evaluation_into(folder, image_folder, tmp_path / "run")
    folder.mkdir()
    writing = folder / ".0-1_3.ckpt.99999999.tmp"
    with locked(folder, "output_dir"):
        writing.touch()
        with pytest.raises(InputError, match=f"process {os.getpid()} on .* writes into it"):
            evaluate(config)
        assert {file.name for file in folder.iterdir()} == {".lock", writing.name}
    assert evaluate(config).complete
    assert not writing.exists()  # its owner has ended
    assert not (folder / ".lock").exists()


@pytest.mark.parametrize("ended", [False, True])
def test_a_folder_that_was_removed_and_is_anothers_now_is_left_to_it(
    tmp_path: Path, ended: bool
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with locked(folder, "output_dir") as check_owner:
        check_owner()
        (folder / ".lock").unlink()
        check_owner()  # the folder is still ours
        folder.rename(tmp_path / "removed")
        check_owner()  # nobody has another
        folder.mkdir()
        if not ended:
            (folder / ".lock").write_text("process 1 on another-host")
        owner = "another process" if ended else "process 1 on another-host"
        message = f"`output_dir` {folder}: was removed while this process ran, and {owner} has"
        with pytest.raises(InputError, match=message):
            check_owner()
    assert (folder / ".lock").exists() is not ended  # the other one is still protected


class _Other(SingleLabel):
    """Another process takes the folder while images are classified."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._folder = folder

    def metrics(self, *arguments: Any, **named: Any) -> Any:
        if self._folder.exists():
            shutil.rmtree(self._folder)
            self._folder.mkdir()
            (self._folder / ".lock").write_text("process 1 on another-host")
        return super().metrics(*arguments, **named)


def test_a_run_whose_folder_became_anothers_writes_nothing_there(
    image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="another-host has written a new one; nothing more is"):
        train(train_config(image_folder, folder), _Other(folder))
    assert [file.name for file in folder.iterdir()] == [".lock"]


def test_an_evaluation_whose_folder_became_anothers_writes_nothing_there(
    image_folder: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "eval"
    config = evaluation_into(folder, image_folder, tmp_path / "run")

    with pytest.raises(InputError, match="another-host has written a new one"):
        evaluate(config, _Other(folder))
    assert [file.name for file in folder.iterdir()] == [".lock"]


def test_a_folder_that_cannot_be_locked_is_written_all_the_same(tmp_path: Path) -> None:
    (tmp_path / ".lock").mkdir()  # it cannot be opened
    with locked(tmp_path, "output_dir"):
        pass
    assert (tmp_path / ".lock").is_dir()


def test_a_folder_on_a_full_disk_has_one_owner_and_no_lock_is_left(tmp_path: Path) -> None:
    with no_file_beyond(0), locked(tmp_path, "output_dir"):
        for _ in range(2):  # a refusal changes nothing
            message = "another process writes into it"
            with pytest.raises(InputError, match=message), locked(tmp_path, "output_dir"):
                pass
    assert list(tmp_path.iterdir()) == []


def test_no_lock_is_left_where_there_are_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(lock: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(tmp_path, "output_dir"):
        assert list(tmp_path.iterdir()) == []
    assert list(tmp_path.iterdir()) == []
