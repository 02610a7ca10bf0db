"""The original's scripts, beside what test_original_contract.py runs of the README."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from helpers.commands import REPOSITORY, environment
from helpers.images import write_classes
from helpers.ranks import RANK_TABLE


def script(folder: Path, command: str) -> "subprocess.CompletedProcess[str]":
    """A command of the scripts, called from a folder."""
    return subprocess.run(
        command.split(),
        cwd=folder,
        capture_output=True,
        text=True,
        env=environment(PYTHON=sys.executable, MAX_RESTARTS="1"),
        timeout=120,
    )


@pytest.mark.parametrize("command", ["train", "eval"])
def test_stop_ends_no_other_process_that_has_the_number_now(command: str, tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        (tmp_path / f"{command}.pid").write_text(f"{other.pid}\n")
        script_file = REPOSITORY / "scripts" / f"run_distribute_{command}.sh"
        done = script(tmp_path, f"sh {script_file} --stop")
        alive = other.poll() is None
        other.kill()
    assert alive
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"launch.sh: --stop: process {other.pid} has ended\n"


def test_a_second_call_from_a_folder_in_which_one_runs_is_refused(tmp_path: Path) -> None:
    table, images = tmp_path / "rank_table.json", tmp_path / "images"
    table.write_text(RANK_TABLE)
    images.mkdir()
    command = f"sh {REPOSITORY / 'scripts' / 'run_distribute_train.sh'} 2 {table} {images}"
    # Its command line is that of torchrun.
    with subprocess.Popen(["sh", "-c", "sleep 60; :", "-m", "torch.distributed.run"]) as first:
        (tmp_path / "train.pid").write_text(f"{first.pid}\n")
        done = script(tmp_path, command)
        first.kill()
    assert (done.returncode, done.stdout) == (2, "")
    assert f"process {first.pid} of an earlier call still runs in {tmp_path}; end" in done.stderr
    assert (tmp_path / "train.pid").read_text() == f"{first.pid}\n"


@pytest.mark.parametrize("name", ["-da ta", r"my\new", "a'b\"$(id)", "images\n"])
def test_whatever_a_folder_and_weights_are_called_these_are_used(name: str, tmp_path: Path) -> None:
    """Of a name that begins with a dash it was the folder that the script is called from."""
    (tmp_path / name).mkdir()
    (tmp_path / "rank_table.json").write_text(RANK_TABLE)
    python, given = tmp_path / "python", tmp_path / "given"
    python.write_text(
        '#!/bin/sh\ncase $2 in *rank_table) printf "NNODES=1\\nFIRST_RANK=0\\n" ;;\n'
        f'*) printf "%s\\0" "$@" >"{given}" ;; esac\n'
    )
    python.chmod(0o755)
    command = ["sh", str(REPOSITORY / "scripts" / "run_distribute_eval.sh"), "--wait", "1"]
    command += ["rank_table.json", name, name]
    started = subprocess.run(command, cwd=tmp_path, env=environment(PYTHON=str(python)))
    assert started.returncode == 0
    folder = f"{tmp_path}/{name}"
    said = given.read_text().split("\0")
    assert said[-5:] == ["--data_dir", folder, "--pretrained", folder, ""]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_wait_returns_when_torchrun_has_ended_with_its_status(
    number: signal.Signals, tmp_path: Path
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "rank_table.json").write_text(RANK_TABLE)
    python = tmp_path / "python"
    python.write_text(
        '#!/bin/sh\ncase $2 in *rank_table) printf "NNODES=1\\nFIRST_RANK=0\\n" ;;\n'
        "*) trap 'sleep 0.2; touch ended; exit 7' TERM; touch started\n"
        "while :; do sleep 0.05; done ;; esac\n"
    )
    python.chmod(0o755)
    command = ["sh", str(REPOSITORY / "scripts" / "run_distribute_train.sh"), "--wait", "1"]
    command += ["rank_table.json", "images"]
    with subprocess.Popen(
        command,
        cwd=tmp_path,
        env=environment(PYTHON=str(python)),
        stdout=subprocess.PIPE,
        # A shell cannot trap what is ignored when it starts, as Ctrl-C is in the background.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as waits:
        try:
            assert waits.stdout is not None
            assert waits.stdout.readline().startswith(b"started process ")
            while not (tmp_path / "started").exists():
                time.sleep(0.02)
            waits.send_signal(number)
            assert waits.wait(timeout=20) == 7
            assert (tmp_path / "ended").exists()
        finally:
            waits.kill()


def test_a_number_of_devices_with_a_leading_zero_is_waited_for(tmp_path: Path) -> None:
    """08 is no number in a shell's arithmetic: the ranks were started, and the script failed."""
    (tmp_path / "images").mkdir()
    (tmp_path / "rank_table.json").write_text(RANK_TABLE)
    python, given = tmp_path / "python", tmp_path / "given"
    python.write_text(
        '#!/bin/sh\ncase $2 in *rank_table) printf "NNODES=1\\nFIRST_RANK=0\\n" ;;\n'
        f'*) echo "$@" >"{given}"; exit 7 ;; esac\n'
    )
    python.chmod(0o755)
    command = f"sh {REPOSITORY / 'scripts' / 'run_distribute_train.sh'} --wait 08"
    done = script(tmp_path, f"env PYTHON={python} {command} rank_table.json images")
    assert (done.returncode, done.stderr) == (7, "")
    assert "rank R of 0 to 7 has its log" in done.stdout
    assert "--nproc_per_node 8 " in given.read_text()


@pytest.mark.slow
def test_a_restart_of_the_scripts_goes_on_with_no_earlier_run(tmp_path: Path) -> None:
    (tmp_path / "rank_table.json").write_text(RANK_TABLE)
    (tmp_path / "scripts").symlink_to(REPOSITORY / "scripts")
    write_classes(tmp_path / "p" / "train", ["ant", "bee"], 16)
    write_classes(tmp_path / "p" / "val", ["ant", "bee"], 5)
    (tmp_path / "small.yaml").write_text(
        "net: densenet40\nimage_size: 16\nmax_epoch: 1\namp: fp32\nper_batch_size: 4\n"
    )
    (tmp_path / "train.py").write_text(
        "import os, signal, sys\nfrom densenet121.cli import main\n"
        'if os.path.exists("../die") and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":\n'
        "    os.kill(os.getpid(), signal.SIGKILL)\n"  # before it has a run folder
        'sys.exit(main(["train", "--config", "../small.yaml", *sys.argv[1:]]))\n'
    )
    for count in (1, 2):
        flags = "--wait 2 rank_table.json p"
        done = script(tmp_path, f"sh scripts/run_distribute_train.sh {flags}")
        assert done.returncode == 0, done.stderr
        assert len(list((tmp_path / "train0" / "output").glob("*/last.safetensors"))) == count
        (tmp_path / "die").touch()
