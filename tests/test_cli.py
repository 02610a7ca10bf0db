"""The command line: what it accepts, and the one line that it says about anything else."""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from densenet121 import cli
from densenet121.config import EvalConfig, TrainConfig, flags_of
from densenet121.utils.errors import UsageError
from densenet121.version import __version__

ROOT = Path(__file__).resolve().parents[1]
NAMES = ["train", "eval", "demo", "report"]


def run(*command: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A Python program with these arguments, its warnings being errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", *command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def refusal(*arguments: str) -> str:
    with pytest.raises(UsageError) as error:
        cli.parse(arguments)
    return str(error.value)


def train(*arguments: str) -> TrainConfig:
    command, config = cli.parse(["train", *arguments])
    assert command == "train"
    assert isinstance(config, TrainConfig)
    return config


@pytest.mark.parametrize("command", [[], *([name] for name in NAMES)], ids=str)
def test_help_comes_within_a_second(command: list[str], tmp_path: Path) -> None:
    seconds = []
    for _ in range(3):  # a busy machine is not a failure
        start = time.perf_counter()
        done = run("-m", "densenet121", *command, "--help", cwd=tmp_path)
        seconds.append(time.perf_counter() - start)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: densenet121")
        if seconds[-1] < 1:
            return
    pytest.fail(f"--help took {seconds} seconds")


def test_neither_help_nor_a_refusal_waits_for_torch(tmp_path: Path) -> None:
    program = f"""
import sys
from densenet121 import cli
for name in {NAMES}:
    try:
        cli.main([name, "--help"])
    except SystemExit:
        pass
    cli.main([name, "--bogus"])
print(sorted({{"torch", "numpy", "cv2", "matplotlib", "sklearn"}} & set(sys.modules)))
"""
    assert run("-c", program, cwd=tmp_path).stdout.splitlines()[-1] == "[]"


def test_help_names_every_command_and_every_flag(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    assert [name for name in cli.COMMANDS if f"\n  {name} " not in text] == []
    for name, config_class in cli.COMMANDS.items():
        with pytest.raises(SystemExit) as end:
            cli.main([name, "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        labels = ["--config", "--print_config", *(flag.label for flag in flags_of(config_class))]
        assert len(labels) == 2 + len(dataclasses.fields(config_class))
        assert [label for label in labels if f"\n  {label} " not in text] == []


def test_version_is_the_version(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main(["--version"])
    assert end.value.code == 0
    assert capsys.readouterr().out.split()[-1] == __version__


@pytest.mark.parametrize("script", ["train", "eval"])
def test_the_original_scripts_run_from_any_folder(script: str, tmp_path: Path) -> None:
    for name, folder in ((f"{script}.py", ROOT), (ROOT / f"{script}.py", tmp_path)):
        done = run(name, "--help", cwd=folder)
        assert done.returncode == 0
        assert done.stdout.startswith(f"usage: densenet121 {script} ")


def test_a_users_mistake_is_one_line_and_status_2(tmp_path: Path) -> None:
    done = run("-m", "densenet121", "train", "--data_dir", "x", "--lr_sched", "x", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "densenet121: unknown flag --lr_sched; did you mean --lr_scheduler?\n"


def test_a_run_that_cannot_start_is_one_line_and_status_1(tmp_path: Path) -> None:
    done = run("-m", "densenet121", "report", "nowhere", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("densenet121: ")
    assert done.stderr.count("\n") == 1
    assert "nowhere" in done.stderr


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("--data", "--data_dir"),  # abbreviations
        ("--lr_sched", "--lr_scheduler"),
        ("--print", "--print_config"),
        ("--hel", "--help"),
        ("--batch_size", "--per_batch_size"),  # other spellings
        ("--image-size", "--image_size"),
        ("--t_max", "--T_max"),
        ("-lr", "--lr"),
        ("--epochs", "--max_epoch"),  # other programs' names
        ("--batch", "--per_batch_size"),
        ("--learning-rate", "--lr"),
        ("--model", "--net"),
        ("--weights", "--pretrained"),
        ("--checkpoint", "--pretrained"),
        ("--train_dir", "--data_dir"),
        ("--save_dir", "--output_dir"),
        ("--gpu", "--device"),
    ],
)
@pytest.mark.parametrize("value", [[], ["x"], ["=x"]], ids=["bare", "value", "equals"])
def test_an_unknown_flag_is_refused_with_the_nearest(
    given: str, meant: str, value: list[str]
) -> None:
    arguments = [given + value[0]] if value == ["=x"] else [given, *value]
    expected = f"unknown flag {given}; did you mean {meant}?"
    assert refusal("train", "--data_dir", "d", *arguments) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data_dir", "d", "--qqq", "1"], "unknown flag --qqq"),
        (["images", "--lr", "1"], "unexpected argument images; --data_dir must be given"),
        (["--data_dir", "d", "two words"], "unexpected argument two words"),
        (["--data_dir", "d", "--lr", "0.1", "0.2"], "unexpected argument 0.2"),
        (["--T_max", "a", "--data_dir", "d"], "--T_max must be a whole number, got a"),
        (["--data_dir", "d", "--workers", "1.5"], "--workers must be a whole number, got 1.5"),
        (["--data_dir", "d", "--workers", "1_0"], "--workers must be a whole number, got 1_0"),
        (["--data_dir", "d", "--lr", "0_1"], "--lr must be a number, got 0_1"),
        (["--data_dir", "d", "--lr", "fast"], "--lr must be a number, got fast"),
        (["--data_dir", "d", "--lr", "-1"], "--lr must be at least 0"),
        (["--data_dir", "d", "--lr"], "--lr needs a value: --lr X"),
        (
            ["--data_dir", "d", "--amp", "fp8"],
            "--amp must be one of O0, O2, O3, fp32, tf32, bf16, fp16, got fp8",
        ),
        (["--data_dir", "d", "--label_smooth", "2"], "--label_smooth must be one of 0, 1, got 2"),
        (
            ["--data_dir", "d", "--lr_scheduler", "step"],
            "--lr_scheduler must be one of exponential, cosine_annealing, cosine, "
            "one_cycle, polynomial, plateau, constant, got step",
        ),
        ([], "--data_dir must be given"),
        (["--data_dir"], "--data_dir needs a value: --data_dir PATH"),
        (["--data_dir", ""], "--data_dir must name images"),
    ],
)
def test_wrong_arguments_are_named_as_the_user_types_them(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["train", *arguments]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(f"densenet121: {message}")
    assert printed.err.count("\n") == 1


def test_other_commands_name_theirs() -> None:
    names = ", ".join(cli.COMMANDS)
    assert refusal() == f"name a command: {names}; see densenet121 --help"
    kinds = "train, head, infer, data, scaling"
    assert refusal("bench", "trian") == f"WHAT must be one of {kinds}, got trian"
    assert refusal("trian") == "unknown command trian; did you mean train?"
    assert refusal("--verison") == "unknown flag --verison; did you mean --version?"
    assert refusal("eval") == "--data_dir, --pretrained must be given"
    assert refusal("eval", "--data_dir", "d") == "--pretrained must be given"
    assert refusal("report") == "RUN must be given"
    assert refusal("report", "a", "b") == "unexpected argument b"
    assert refusal("help", "train") == "unknown command help; see densenet121 --help"
    target = "unknown flag --output; pass SOURCE TARGET without a flag"
    assert refusal("convert", "a", "--output", "b") == target
    assert refusal("report", "--run", "a") == "unknown flag --run; pass RUN without a flag"
    images = "unknown flag --data_dir; pass SOURCE without a flag"
    assert refusal("audit", "--data_dir", "a") == images
    assert refusal("bench", "infer", "--pretrained", "w") == "unknown flag --pretrained"
    weights = "unknown flag --pretrained; pass WEIGHTS without a flag"
    assert refusal("serve", "--pretrained", "w.safetensors") == weights
    assert refusal("predict", "--data_dir", "a") == (
        "unknown flag --data_dir; pass INPUTS without a flag"
    )


@pytest.mark.parametrize("text", ["5", "007", "1e3", "true", "a b", "a: b", "[a]", "{a: b}"])
def test_a_path_stays_the_text_that_was_typed(text: str) -> None:
    assert train("--data_dir", text, "--pretrained", text).pretrained == text
    assert train(f"--data_dir={text}").data_dir == text


def test_the_original_command_lines_mean_what_they_did() -> None:
    config = train(
        *("--data_dir", "/data/ImageNet/train/", "--pretrained", "/path/to/w.ckpt"),
        *("--is_distributed", "0", "--image_size", "224,224", "--lr_epochs", "30,60"),
    )
    assert (config.data_dir, config.pretrained) == ("/data/ImageNet/train/", "/path/to/w.ckpt")
    assert (config.is_distributed, config.size, config.milestones) == (0, (224, 224), (30, 60))
    _, evaluation = cli.parse(["eval", "--data_dir", "/data/val", "--pretrained", "/ckpts"])
    assert evaluation == EvalConfig(data_dir="/data/val", pretrained="/ckpts")


def test_of_a_flag_given_twice_the_last_counts() -> None:
    assert train("--data_dir", "a", "--lr", "1", "--data_dir", "b").data_dir == "b"


def test_flags_override_the_config_file_wherever_it_stands(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("data_dir: images\nlr: 0.2\nweight_decay: 1e-5\nimage_size: 64,96\n")
    expected = TrainConfig(data_dir="images", lr=0.5, weight_decay=1e-5, image_size="64,96")
    assert train("--config", str(file), "--lr", "0.5") == expected
    assert train("--lr", "0.5", "--config", str(file)) == expected
    assert train("--lr", "0.5", f"--config={file}") == expected


def test_of_two_config_files_the_later_counts(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("data_dir: a\nlr: 0.2\n")
    second.write_text("lr: 0.3\n")
    config = train("--config", str(first), "--config", str(second))
    assert (config.data_dir, config.lr) == ("a", 0.3)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"lr: [1\n", "--config {}: not valid YAML (line 1, column 5)"),
        (b"lr: 0.1\n---\nlr: 0.2\n", "--config {}: not valid YAML (line 1, column 1)"),
        (
            b"lr: 0.1\n\teps: 1\n",
            "--config {}: not valid YAML (line 2, column 1); a tab stands where only blanks may",
        ),
        (b"lr: \x07\n", "--config {}: not valid YAML"),
        (b"[" * 5000, "--config {}: not valid YAML"),
        (b"data_dir: d\nlr 0.1\n", "--config {}: not valid YAML (line 2, column 1)"),
        (b"just words\n", "--config {}: must have lines of NAME: VALUE, such as lr: 0.1"),
        (b"- lr\n", "--config {}: must have lines of NAME: VALUE, such as lr: 0.1"),
        (b"", "--config {}: must have lines of NAME: VALUE, such as lr: 0.1"),
        (b"\xff\xfe\x00", "--config {}: not a UTF-8 text file"),
        (b"5: lr\n", "--config {}, line 1: unknown key 5"),
        (
            b"lr: !!python/object:os.system {}\n",
            "--config {}, line 1: lr must be a number, got !!python/object:os.system {{}}",
        ),
        (
            b"\nlr_shed: x\n",
            "--config {}, line 2: unknown key lr_shed; did you mean lr_scheduler?",
        ),
        (b"train:\n  lr: 1\n", "--config {}, line 1: unknown key train"),
        (b"lr: 1\nlr: 1\n", "--config {}, line 2: lr is given twice"),
        (b"data_dir: d\nlr: fast\n", "--config {}, line 2: lr must be a number, got fast"),
        (b"data_dir: d\nlr: -1\n", "--lr must be at least 0"),
        (
            b"data_dir: d\nlr_epochs: [30, 60]\n",
            "--config {}, line 2: lr_epochs must be text, got [30, 60]; write 30,60",
        ),
        (b"data_dir: null\n", "--data_dir must be given"),
        (b"? [lr, a]\n: 1\n", "--config {}, line 1: unknown key [lr, a]"),
        (b"lr: [%s]\n" % (b"1," * 200_000), "--config {}: is too long for settings; at most"),
    ],
)
def test_a_wrong_config_file_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_bytes(content)
    assert refusal("train", "--config", str(file)).startswith(message.format(file))


def test_a_missing_config_file_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "none.yaml"
    missing = f"--config {file}: cannot be read (No such file or directory)"
    assert refusal("train", "--data_dir", "d", "--config", str(file)) == missing
    folder = f"--config {tmp_path}: cannot be read (Is a directory)"
    assert refusal("train", "--config", str(tmp_path)) == folder


def test_a_config_file_that_is_an_endless_device_is_refused() -> None:
    endless = "--config /dev/zero: cannot be read (is no file and seems to have no end)"
    assert refusal("train", "--config", "/dev/zero") == endless
    assert refusal("train", "--config") == "--config must name a YAML file of settings, got none"


def test_a_config_file_is_read_as_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(
        "data_dir: 007\nlr: 1e-2\nweight_decay: 5.0e-4\nmax_epoch: '5'\nseed: 0x10\n"
        "image_size: 64\nlabel_smooth: true\nworkers: null\nT_max: ~\neta_min:\nmomentum: null\n"
        "pretrained: 'null'\nresume: 2020-01-01\ncolor_jitter: 0.1,0.1,0.1\n"
    )
    assert train("--config", str(file)) == TrainConfig(
        data_dir="007",
        lr=0.01,
        weight_decay=5e-4,
        max_epoch=5,
        seed=16,
        image_size=64,
        label_smooth=1,
        pretrained="null",
        resume="2020-01-01",
        color_jitter="0.1,0.1,0.1",
    )
    file.write_text("inputs: [a, b]\npretrained: w\n")
    _, predict = cli.parse(["predict", "--config", str(file)])
    assert predict.inputs == ["a", "b"]
    file.write_text("source: d\njson: yes\n")
    _, audit = cli.parse(["audit", "--config", str(file)])
    assert audit.json is True


def test_null_takes_a_value_back_to_its_default(tmp_path: Path) -> None:
    first, second = tmp_path / "a.yaml", tmp_path / "b.yaml"
    first.write_text("data_dir: d\nlr: 0.2\nworkers: 2\nT_max: 5\n")
    second.write_text("lr: null\nT_max: null\n")
    config = train("--config", str(first), "--config", str(second), "--workers", "null")
    assert config == TrainConfig(data_dir="d")
    assert refusal("train", "--data_dir", "d", "--lr", "null") == "--lr must be a number, got null"


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--data_dir", "007", "--lr", "1e-3", "--image_size", "64", "--resume", "auto"],
        ["train", "--data_dir", "a: b # c", "--pretrained", " x", "--eval_resize", "short:256"],
        ["eval", "--data_dir", "true", "--pretrained", "null_", "--amp", "O2"],
        ["demo", "--max_epoch", "3"],
        ["report", "2020-01-01"],
        ["predict", "null", "- a", os.fsdecode(b"\xff.png"), "--pretrained", "x" * 300 + " y: z"],
        ["audit", "d", "--json", "--most_pixels", "1e-7"],
    ],
    ids=" ".join,
)
def test_printed_settings_can_be_read_back(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        cli.main([*arguments, "--print_config"])
    assert end.value.code == 0
    file = tmp_path / os.fsdecode(b"\xc3\xa4.yaml")
    file.write_text(capsys.readouterr().out, encoding="utf-8")
    assert cli.parse([arguments[0], "--config", str(file)]) == cli.parse(arguments)


def test_printed_settings_may_leave_out_defaults_and_nulls(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def printed(*arguments: str) -> list[str]:
        with pytest.raises(SystemExit):
            cli.main(["train", *arguments])
        return capsys.readouterr().out.splitlines()

    given = ("--data_dir", "d", "--lr", "0.5")
    assert printed(*given, "--print_config=skip_default") == ["data_dir: d", "lr: 0.5"]
    whole, without = printed(*given, "--print_config"), printed(*given, "--print_config=skip_null")
    assert without == [line for line in whole if not line.endswith(": null")]
    assert len(whole) == len(dataclasses.fields(TrainConfig))
    assert printed("--print_config")[0] == "data_dir: null"  # a form to fill in
    assert refusal("train", "--print_config=all").startswith("--print_config takes skip_default")


def test_arguments_without_a_flag_may_stand_anywhere() -> None:
    expected = cli.parse(["predict", "a", "b", "--pretrained", "w", "--top_k", "2"])
    assert cli.parse(["predict", "--pretrained", "w", "a", "--top_k", "2", "b"]) == expected
    _, config = cli.parse(["predict", "-", "--pretrained", "w", "--", "-a", "--top_k"])
    assert config.inputs == ["-", "-a", "--top_k"]


def test_a_flag_before_the_command_is_refused() -> None:
    for flag in ("--lr", "--config", "--print_config"):
        assert refusal(flag, "x", "train").startswith(f"name a command before {flag}: train, eval")
    assert refusal("train", "--data_dir", "d", "--help=1") == "--help takes no value"
    assert refusal("audit", "d", "--json=1") == "--json takes no value"


def test_help_has_sections_and_every_default(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.main(["train", "--help"])
    text = capsys.readouterr().out
    sections = [line[:-1] for line in text.splitlines() if line.endswith(":") and line[0] != " "]
    assert sections == [
        *("data", "labels", "network", "optimisation", "schedule", "fine-tuning", "loss"),
        *("distillation", "augmentation"),
        *("devices and processes", "output", "settings and help"),
    ]
    flat = " ".join(text.split())
    assert "number of cores, shared among the processes of a host)" in flat
    assert flat.count("(default: ") == len(dataclasses.fields(TrainConfig)) - 1
    assert flat.count("(required)") == 1


def test_no_flag_has_two_defaults_in_the_help() -> None:
    twice = {
        (command, flag.label)
        for command, config_class in cli.COMMANDS.items()
        for flag in flags_of(config_class)
        if "(default:" in flag.meaning
    }
    assert not twice


def test_only_metrics_speaks_of_labels_without_a_probability() -> None:
    speak = {
        command
        for command, config_class in cli.COMMANDS.items()
        for flag in flags_of(config_class)
        if "without a probability" in flag.meaning or "without a probability" in flag.default_text
    }
    assert speak == {"metrics"}


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_help_fits_the_terminal(
    columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    for command in ([], *([name] for name in cli.COMMANDS)):
        with pytest.raises(SystemExit):
            cli.main([*command, "--help"])
        usage, *lines = capsys.readouterr().out.splitlines()
        assert usage.startswith("usage: densenet121 ")
        # The choices of a flag stand on one line, however long: they can be copied.
        wrapped = [line for line in lines if not line.startswith(("  --", "densenet121 "))]
        assert max(map(len, wrapped)) <= min(columns, 100)


def test_an_error_names_the_flag_of_a_field(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "missing"
    output = str(tmp_path / "run")
    assert cli.main(["train", "--data_dir", str(missing), "--output_dir", output]) == 1
    printed = capsys.readouterr().err
    assert printed == f"densenet121: --data_dir {missing}: there is no such folder\n"


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (
            ["calibrate", "--data_dir", "d", "--pretrained", "w", "--output", "w.pth"],
            ".safetensors",
        ),
        (["average", "a", "b", "--output", "w.ckpt"], ".safetensors"),
        (["probe", "--data_dir", "d", "--pretrained", "w", "--output", "w.H5"], ".safetensors"),
        (["show", "--data_dir", "d", "--output", "sheet.png"], ".html"),
        (["audit", "d", "--page", "page.txt"], ".html"),
        (["lr-find", "--data_dir", "d", "--output", "lr.csv"], ".png"),
    ],
)
def test_a_file_is_not_written_under_the_name_of_another_format(
    arguments: list[str], allowed: str
) -> None:
    flag, name = arguments[-2:]
    assert refusal(*arguments).startswith(f"{flag} must be a {allowed} file, got {name}")


def test_int8_weights_have_no_name_of_other_programs_weights() -> None:
    given = ["export", "--data_dir", "d", "--pretrained", "w", "--format", "native", "--int8", "1"]
    found = refusal(*given, "--output", "w.bin")
    assert found == "--output must be a .safetensors file for --format native, got w.bin"


def test_an_error_of_a_run_names_the_file_of_a_setting_that_no_flag_gave(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It said to omit --num_classes, which the recipe of ImageNet has and nobody passed."""
    file = tmp_path / "run.yaml"
    file.write_text("num_classes: 1000\nnet: densenet40\nimage_size: 32\n")
    flags = ["train", "--data_dir", str(image_folder), "--output_dir", str(tmp_path / "out")]
    assert cli.main([*flags, "--config", str(file)]) == 2
    said = capsys.readouterr().err
    assert said.endswith(f"omit it to use all of them; --config {file} sets --num_classes\n")
    assert cli.main([*flags, "--config", str(file), "--num_classes", "7"]) == 2
    assert capsys.readouterr().err.endswith("omit it to use all of them\n")


def test_an_error_about_the_images_names_the_file_of_the_setting_too(
    image_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One with status 1 named the flag of the column, which nobody had passed, and not the file."""
    images, file = tmp_path / "images.csv", tmp_path / "run.yaml"
    paths = sorted((image_folder / "train").glob("*/*.*"))
    images.write_text("\n".join(["path,label,sex", *(f"{p},{p.parent.name},f" for p in paths)]))
    file.write_text("group: patient\n")
    flags = ["split", str(images), "--output", str(tmp_path / "lists"), "--config", str(file)]
    assert cli.main(flags) == 1
    said = capsys.readouterr().err
    assert "--group patient is no column and finds no id in " in said
    assert said.endswith(f"; the columns are label, sex; --config {file} sets --group\n")
