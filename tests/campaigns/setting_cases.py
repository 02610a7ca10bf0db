"""Command lines and YAML files of settings, drawn from what the commands take and from nonsense."""

import contextlib
import io
import random
from pathlib import Path

from campaigns.campaign import Target
from campaigns.image_cases import one_line
from campaigns.mutation import damaged
from densenet121.cli import COMMANDS, main, parse
from densenet121.config import flags_of
from densenet121.utils.errors import InputError, UsageError

Arguments = list[str]
_FOLDER: list[Path] = []
_VALUES = (
    *("", "0", "1", "-1", "2", "0.5", "1e-4", "1e999", "nan", "-inf", "9" * 400, "true", "none"),
    *("null", "auto", "a,b", "1,2,3", ",", "224,224", "short:256", "percentile:1,99", "full"),
    *(
        "x=y",
        "=",
        "--",
        "-",
        "-5",
        "--lr",
        "/dev/null",
        "\0",
        "\ud800",
        "é",
        " ",
        "a b",
        "*",
        "../..",
    ),
    *("0x10", "1_000", "٣", "1,5", "[1, 2]", "{a: 1}", "!!python/name:os.system", "youden"),
)
_YAML = (
    *("lr: 0.1", "max_epoch: 3", "data_dir: [a, b]", "? x", "- a", "&a [*a]", "<<: {lr: 1}"),
    *(
        "lr: !!python/object/apply:os.system [touch x]",
        "lr: *b",
        "{",
        "[" * 3000,
        "%YAML 9.9",
        "\0",
    ),
    *("lr: 2026-01-01", "lr: ~", "lr:", "1: 2", "? [a]\n: b", "\tlr: 1", "lr: 'x", "lr: |\n  x"),
)


def make(rng: random.Random) -> Arguments:
    """A command, flags of its own and others, values of any kind; often a file of settings."""
    command = rng.choice((*COMMANDS, "trian", "", "--help", "-h", "--version", "--lr"))
    arguments = [command] if rng.random() < 0.97 else []
    flags = flags_of(COMMANDS[command]) if command in COMMANDS else flags_of(COMMANDS["train"])
    if command in COMMANDS and rng.random() < 0.7:  # what is required, so that checks are reached
        for flag in flags:
            if flag.required:
                arguments += ["x.csv"] if flag.positional else [flag.label, "x"]
    for _ in range(rng.randrange(6)):
        flag = rng.choice(flags)
        label = flag.label if not flag.positional else rng.choice(_VALUES)
        if rng.random() < 0.05:
            label = rng.choice(("--no_such", "-x", "---", label[:-1], label + "s", label.upper()))
        value = str(rng.choice(flag.choices)) if flag.choices and rng.random() < 0.5 else ""
        value = value or rng.choice(_VALUES)
        if rng.random() < 0.4:
            arguments.append(f"{label}={value}")
        else:
            arguments += [label] if rng.random() < 0.1 else [label, value]
    if rng.random() < 0.3:
        arguments += ["--config", rng.choice(("settings.yaml", "", "/", "no.yaml"))]
    if rng.random() < 0.2:
        arguments.append(
            rng.choice(("--print_config", "--print_config=skip_null", "--print_config=z"))
        )
    return arguments


def make_case(rng: random.Random) -> tuple[Arguments, bytes]:
    """Arguments, and the content of settings.yaml."""
    lines = []
    for _ in range(rng.randrange(5)):
        if rng.random() < 0.5:
            lines.append(rng.choice(_YAML))
        else:
            flag = rng.choice(flags_of(rng.choice(list(COMMANDS.values()))))
            lines.append(f"{flag.name}: {rng.choice(_VALUES)}")
    data = "\n".join(lines).encode("utf-8", "replace")
    return make(rng), damaged(rng, data) if rng.random() < 0.3 else data


def run(case: tuple[Arguments, bytes]) -> str:
    """Parsed, or refused in one line. What is refused is refused by ``main`` too, with status 2."""
    arguments, data = case
    path = _FOLDER[0] / "settings.yaml"
    path.write_bytes(data)
    arguments = [str(path) if argument == "settings.yaml" else argument for argument in arguments]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            parse(arguments)
        except UsageError as error:
            # `fields` are written as flags by main, which prints one line
            assert str(error).strip()
        except SystemExit as stop:
            assert stop.code == 0, stop.code
            assert out.getvalue()
            return "printed"
        else:
            return "parsed"
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        assert main(arguments) == 2
    (line,) = said.getvalue().splitlines()
    assert line.startswith("densenet121: ")
    return "refused"


def printed_again(case: tuple[Arguments, bytes]) -> str:
    """What --print_config prints is read again to the same settings."""
    arguments, data = case
    path = _FOLDER[0] / "settings.yaml"
    path.write_bytes(data)
    arguments = [str(path) if argument == "settings.yaml" else argument for argument in arguments]
    arguments = [argument for argument in arguments if not argument.startswith("--print_config")]
    with contextlib.redirect_stdout(io.StringIO()):
        try:
            command, first = parse(arguments)
        except (UsageError, InputError, SystemExit) as error:
            if isinstance(error, InputError):
                one_line(error)
            return "refused"
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        parse([*_before_dashes(arguments), "--print_config", *_after_dashes(arguments)])
    (_FOLDER[0] / "printed.yaml").write_text(out.getvalue(), "utf-8", "surrogatepass")
    _, second = parse([command, "--config", str(_FOLDER[0] / "printed.yaml")])
    assert repr(first) == repr(second)
    return "read again"


def _before_dashes(arguments: Arguments) -> Arguments:
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _after_dashes(arguments: Arguments) -> Arguments:
    return arguments[arguments.index("--") :] if "--" in arguments else []


def load(folder: Path) -> None:
    """Where settings.yaml is."""
    _FOLDER[:] = [folder]


def targets(folder: Path) -> list[Target]:
    """Of this file; ``folder`` is for files."""
    return [
        Target("settings", make_case, run, lambda: load(folder)),
        Target("print-config", make_case, printed_again, lambda: load(folder)),
    ]
