"""The command line: ``main(argv)`` parses, runs one command, and returns the exit status.

0 done, 1 the run failed or its result is partial, 2 wrong usage, 143 stopped by a signal after
saving. A user's mistake is one line on stderr.
"""

import argparse
import contextlib
import difflib
import re
import signal
import sys
from collections.abc import Sequence
from typing import Any

from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from densenet121.config import DemoConfig, EvalConfig, ReportConfig, TrainConfig
from densenet121.utils.errors import InputError, UsageError
from densenet121.version import __version__

STOPPED = 128 + signal.SIGTERM

COMMANDS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "eval": EvalConfig,
    "demo": DemoConfig,
    "report": ReportConfig,
}
_POSITIONAL = {"report": "run"}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's arguments) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        command, config = parse(arguments)
        return _run(command, config)
    except UsageError as error:
        return _fail(error, status=2)
    except (InputError, OSError) as error:
        return _fail(error, status=1)
    except KeyboardInterrupt:
        return _fail("stopped; what was saved before is intact", status=STOPPED)


def parse(arguments: Sequence[str]) -> tuple[str, Any]:
    """The command and its settings.

    Raises:
        UsageError: what is wrong with the arguments, in one line.
        SystemExit: after --help, --version and --print_config.
    """
    parser = make_parser()
    try:
        namespace = parser.parse_args(arguments)
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        raise UsageError(_one_line(str(error), arguments)) from None
    command: str = namespace.command
    values = dict(vars(namespace[command]))
    values.pop("config", None)
    return command, COMMANDS[command](**values)


def make_parser() -> ArgumentParser:
    """One sub-parser a command, its flags made from the command's dataclass."""
    parser = ArgumentParser(
        prog="densenet121",
        description="Train, evaluate and ship DenseNet-121 image classifiers.",
        exit_on_error=False,
        version=__version__,
    )
    commands = parser.add_subcommands(dest="command")
    for name, config_class in COMMANDS.items():
        description = (config_class.__doc__ or "").splitlines()[0]
        command = ArgumentParser(description=description, exit_on_error=False)
        command.add_argument(
            "--config",
            action=ActionConfigFile,
            help="YAML file of flags; those given here go before",
        )
        if name in _POSITIONAL:
            command.add_argument(_POSITIONAL[name], type=str, help="the run folder")
        else:
            command.add_class_arguments(config_class, None)
        commands.add_subcommand(name, command, help=description)
    return parser


def _run(command: str, config: Any) -> int:
    # Imported here, each by the command that needs it: torch takes seconds.
    if command == "train":
        from densenet121.engine.train import train
        from densenet121.report import write_report

        result = train(config)
        if result.stopped:
            return STOPPED
        write_report(result.folder)
        return 1 if result.bad_images else 0
    if command == "eval":
        from densenet121.engine.evaluation import evaluate

        evaluated = evaluate(config)
        return STOPPED if evaluated.stopped else 0 if evaluated.complete else 1
    if command == "demo":
        from densenet121.demo import demo

        return STOPPED if demo(config) is None else 0
    from pathlib import Path

    from densenet121.report import write_report

    print(write_report(Path(config.run)))  # noqa: T201 (the command's output)
    return 0


def _fail(error: object, *, status: int) -> int:
    line = " ".join(str(error).split())
    with contextlib.suppress(BrokenPipeError):
        print(f"densenet121: {line}", file=sys.stderr)  # noqa: T201 (where errors belong)
    return status


def _one_line(message: str, arguments: Sequence[str]) -> str:
    """The library's message about wrong arguments, in the words of a flag and its value."""
    unknown = re.search(r"[Uu]nrecognized arguments: (.*)", message)
    if unknown:
        return _unknown_flag(unknown[1].split()[0], arguments)
    key = re.search(r'Parser key "(?:\w+\.)?(\w+)"', message)
    if key:
        given = re.search(r"(?:Got value|Given value): (.*)", message)
        expected = _expected(key[1], arguments)
        return f"--{key[1]} must be {expected}, got {given[1] if given else 'something else'}"
    required = re.search(r"the following arguments are required: (.*)", message)
    if required:
        names = [name.split(".")[-1].strip() for name in required[1].split(",")]
        return f"{', '.join(f'--{name}' for name in names)} must be given"
    if "to be one of" in message and "not provided" in message:
        return f"name a command: {', '.join(COMMANDS)} (densenet121 --help tells more)"
    return " ".join(message.split())


def _unknown_flag(flag: str, arguments: Sequence[str]) -> str:
    known = [f"--{name}" for name in _fields(arguments)] + ["--config", "--print_config", "--help"]
    nearest = difflib.get_close_matches(flag.split("=")[0], known, n=1, cutoff=0.4)
    hint = f"; did you mean {nearest[0]}?" if nearest else ""
    return f"unknown flag {flag}{hint}"


def _fields(arguments: Sequence[str]) -> dict[str, Any]:
    command = next((argument for argument in arguments if argument in COMMANDS), None)
    return dict(COMMANDS[command].__dataclass_fields__) if command else {}


def _expected(name: str, arguments: Sequence[str]) -> str:
    field = _fields(arguments).get(name)
    kind = str(getattr(field, "type", "")).replace("typing.", "").replace(" | None", "")
    choices = re.findall(r"Literal\[(.*?)\]", kind)
    if choices:
        return "one of " + choices[0].replace("'", "")
    if "int" in kind:
        return "a whole number"
    return "a number" if "float" in kind else "text"
