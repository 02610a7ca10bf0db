"""The command line: ``main(argv)`` parses, runs one command, and returns the exit status.

0 done, 1 the run failed or its result is partial, 2 wrong usage, 143 stopped by a signal after
saving. A user's mistake is one line on stderr.
"""

import argparse
import contextlib
import dataclasses
import difflib
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from docstring_parser import parse as parse_docstring
from jsonargparse import ActionConfigFile, ArgumentParser  # type: ignore[attr-defined]

from densenet121.config.audit import AuditConfig, PackConfig
from densenet121.config.bench import BenchConfig
from densenet121.config.deploy import (
    CalibrateConfig,
    CompareConfig,
    ExportConfig,
    PredictConfig,
    ServeConfig,
)
from densenet121.config.settings import (
    ConvertConfig,
    DemoConfig,
    EvalConfig,
    InspectConfig,
    ReportConfig,
    TrainConfig,
)
from densenet121.utils.errors import InputError, UsageError
from densenet121.utils.signals import StopRequest
from densenet121.version import __version__

STOPPED = 128 + signal.SIGTERM

COMMANDS: dict[str, type[Any]] = {
    "train": TrainConfig,
    "eval": EvalConfig,
    "demo": DemoConfig,
    "audit": AuditConfig,
    "pack": PackConfig,
    "report": ReportConfig,
    "bench": BenchConfig,
    "convert": ConvertConfig,
    "inspect": InspectConfig,
    "predict": PredictConfig,
    "compare": CompareConfig,
    "calibrate": CalibrateConfig,
    "export": ExportConfig,
    "serve": ServeConfig,
}
# Arguments without a flag: of each command, in their order, how many values, what they are.
POSITIONAL: dict[str, dict[str, tuple[str | None, str]]] = {
    "report": {"run": (None, "the run folder")},
    "audit": {"source": (None, "images, as train takes them")},
    "pack": {"source": (None, "images, as train takes them")},
    "bench": {"what": (None, "what is measured: train, infer, data or scaling")},
    "convert": {
        "source": (None, "weights of any format that is read"),
        "target": (None, "the new file; its suffix chooses between the formats of the program"),
    },
    "serve": {"weights": (None, "a checkpoint, weights file or exported .onnx")},
    "inspect": {"file": (None, "the weights file")},
    "predict": {"inputs": ("+", "images, folders, or - for standard input")},
    "compare": {
        "a": (None, "folder that eval wrote, or its predictions.csv"),
        "b": (None, "likewise; is it worse?"),
    },
}


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
    arguments = _config_first(arguments)
    try:
        namespace = parser.parse_args(arguments)
    except (argparse.ArgumentError, argparse.ArgumentTypeError) as error:
        raise UsageError(_one_line(str(error), arguments)) from None
    except UnicodeDecodeError as error:
        raise UsageError(_config_fault(str(error), arguments)) from None
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
        allow_abbrev=False,  # a flag of a later version may make today's abbreviation ambiguous
        version=__version__,
    )
    commands = parser.add_subcommands(dest="command")
    for name, config_class in COMMANDS.items():
        description = (config_class.__doc__ or "").splitlines()[0]
        command = ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False)
        command.add_argument(
            "--config",
            action=ActionConfigFile,
            help="YAML file of flags; those given here go before",
        )
        positional = POSITIONAL.get(name, {})
        for argument, (count, meaning) in positional.items():
            more: dict[str, Any] = {} if count is None else {"nargs": count}
            command.add_argument(argument, type=str, help=meaning, **more)
        switches = {field.name for field in dataclasses.fields(config_class) if field.type is bool}
        command.add_class_arguments(config_class, None, skip={*positional, *switches})
        for switch in switches:
            command.add_argument(
                f"--{switch}", action="store_true", help=_meaning(config_class, switch)
            )
        commands.add_subcommand(name, command, help=description)
        command.prog = f"densenet121 {name}"
    return parser


def _meaning(config_class: type[Any], field: str) -> str:
    """What a dataclass's docstring says of a field."""
    known = parse_docstring(config_class.__doc__ or "").params
    return next(p.description or "" for p in known if p.arg_name == field)


def _run(command: str, config: Any) -> int:
    # Imported here, each by the command that needs it: torch takes seconds.
    if command == "train":
        from densenet121.engine.train import train
        from densenet121.report import write_report

        # What follows the run, the freeing of its memory and the report, is not to be interrupted:
        # Python would print a traceback of whatever a signal happened to meet.
        with StopRequest():
            result = train(config)
            if result.stopped:
                return STOPPED
            if result.rank == 0:
                write_report(result.folder)
        return 1 if result.bad_images else 0
    if command == "eval":
        from densenet121.engine.evaluate import evaluate

        with StopRequest():
            evaluated = evaluate(config)
        return STOPPED if evaluated.stopped else 0 if evaluated.complete else 1
    if command == "demo":
        from densenet121.commands.demo import demo

        return STOPPED if demo(config) is None else 0
    if command == "audit":
        from densenet121.audit.audit import as_json as audit_json
        from densenet121.audit.audit import audit
        from densenet121.audit.audit import table as audit_table

        found = audit(config)
        print(audit_json(found) if config.json else audit_table(found))  # noqa: T201
        return 1 if found.has_faults else 0
    if command == "pack":
        from densenet121.commands.pack import pack

        print(pack(config))  # noqa: T201 (the command's output)
        return 0
    if command == "bench":
        from densenet121.bench.compute import as_json, table
        from densenet121.bench.compute import compare as measure

        if config.what == "data":
            from densenet121.bench.data import compare_loading, loading_table

            loading = compare_loading(config)
            print(as_json(loading) if config.json else loading_table(loading))  # noqa: T201
            return 0
        if config.what == "scaling":
            from densenet121.bench.scaling import measure_scaling, scaling_table

            scaling = measure_scaling(config)
            print(as_json(scaling) if config.json else scaling_table(scaling))  # noqa: T201
            return 0
        comparison = measure(config)
        print(as_json(comparison) if config.json else table(comparison))  # noqa: T201
        return 0
    if command == "convert":
        from densenet121.checkpoint.convert import convert

        source, target = Path(config.source), Path(config.target)
        done = convert(source, target, config.to, net=config.net, variant=config.variant)
        print(  # noqa: T201 (the command's output)
            f"{target}: {done.info.net}, variant {done.info.variant}, from {done.family}; read "
            f"again, all {done.tensors} tensors are the same to the bit"
            + ("; its calibration stays behind, such files hold none" if done.lost else "")
        )
        return 0
    if command == "inspect":
        from densenet121.checkpoint.inspect import inspect

        print(inspect(Path(config.file)))  # noqa: T201 (the command's output)
        return 0
    if command == "predict":
        from densenet121.commands.predict import predict

        return 1 if predict(config) else 0
    if command == "compare":
        from densenet121.commands.compare import compare

        return compare(config)
    if command == "calibrate":
        from densenet121.commands.calibrate import calibrate

        calibrate(config)
        return 0
    if command == "export":
        from densenet121.commands.export import export

        export(config)
        return 0
    if command == "serve":
        try:
            from densenet121.serve import serve
        except ModuleNotFoundError as error:
            raise InputError(
                f"serve needs {error.name}; pip install 'densenet121[serve]'"
            ) from None
        # uvicorn hands the signal on after it has finished; it has done its work then.
        with StopRequest():
            serve(config)
        return 0
    from densenet121.report import write_report

    print(write_report(Path(config.run)))  # noqa: T201 (the command's output)
    return 0


def _fail(error: object, *, status: int) -> int:
    line = " ".join(str(error).split())
    with contextlib.suppress(BrokenPipeError):
        print(f"densenet121: {line}", file=sys.stderr)  # noqa: T201 (where errors belong)
    return status


def _config_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with each --config before the other flags, which are to overrule it.

    Raises:
        UsageError: no file after it.
    """
    files: list[str] = []
    others: list[str] = []
    waiting = iter(arguments)
    for argument in waiting:
        flag, equals, value = argument.partition("=")
        if flag != "--config":
            others.append(argument)
            continue
        file = value if equals else next(waiting, "")
        if not file:
            raise UsageError("--config must name a YAML file of flags, got none")
        files.append(f"--config={file}")
    return [*others[:1], *files, *others[1:]]


def _one_line(message: str, arguments: Sequence[str]) -> str:
    """The library's message about wrong arguments, in the words of a flag and its value."""
    unknown = re.search(r"[Uu]nrecognized arguments: (.*)", message, re.DOTALL)
    if unknown:
        first = max((a for a in arguments if unknown[1].startswith(a)), key=len)
        return _unknown(first, arguments)
    unknown = re.search(r"does not accept option '(.*)'", message)
    if unknown:
        return _unknown(f"--{unknown[1]}", arguments)
    unknown = re.search(r"argument command: invalid choice: '(.*)' \(", message)
    if unknown:
        return f"unknown command {unknown[1]}{_nearest(unknown[1], COMMANDS)}"
    choice = re.search(r"argument (\w+): invalid choice: '(.*)' \(choose from (.*)\)", message)
    if choice:
        return f"{choice[1]} must be one of {choice[3]}, got {choice[2]}".replace("'", "")
    if re.search(
        r'(?:Problems parsing|Unexpected) config|Key must be|Parser key "config"', message
    ):
        return _config_fault(message, arguments)
    key = re.search(r'Parser key "(?:\w+\.)?(\w+)"', message)
    if key:
        given = re.search(r"(?:Got value|Given value): (.*)", message)
        expected = _expected(key[1], arguments)
        return f"--{key[1]} must be {expected}, got {given[1] if given else 'something else'}"
    required = re.search(r"the following arguments are required: (.*)", message)
    if required:
        names = [name.split(".")[-1].strip() for name in required[1].split(",")]
        return f"{', '.join(_as_typed(name) for name in names)} must be given"
    if "to be one of" in message and "not provided" in message:
        return f"name a command: {', '.join(COMMANDS)} (densenet121 --help tells more)"
    return " ".join(message.split())


def _config_fault(message: str, arguments: Sequence[str]) -> str:
    files = [a.partition("=")[2] for a in arguments if a.startswith("--config=")]
    for file in files:
        try:
            Path(file).read_text(encoding="utf-8")
        except OSError as error:
            return f"--config {file}: cannot be read ({error.strerror})"
        except ValueError:  # not UTF-8, or a NUL character in the name
            return f"--config {file}: not a text file"
    where = re.search(r"line \d+, column \d+", message)
    place = f" ({where[0]})" if where else ""
    return f"--config {', '.join(files)}: not a YAML file of flags{place}"


def _unknown(argument: str, arguments: Sequence[str]) -> str:
    if not argument.startswith("-"):
        return f"unexpected argument {argument}"
    flag = argument.partition("=")[0]
    flags = [f"--{name}" for name in _fields(arguments) if not is_positional(name)]
    known = [*flags, "--config", "--print_config", "--help"] if flags else ["--version", "--help"]
    return f"unknown flag {flag}{_nearest(flag, known)}"


def _nearest(word: str, known: Iterable[str]) -> str:
    whole = {name.strip("-"): name for name in known}
    word = word.strip("-")
    begun = sorted(name for name in whole if word and name.startswith(word))
    near = begun or difflib.get_close_matches(word, whole, n=1)
    return f"; did you mean {whole[near[0]]}?" if near else ""


def _positional_names() -> set[str]:
    return {name for arguments in POSITIONAL.values() for name in arguments}


def _as_typed(name: str) -> str:
    return name.upper() if is_positional(name) else f"--{name}"


def is_positional(name: str) -> bool:
    """Whether a field is given by its place on the command line, not by a flag."""
    return any(name in places for places in POSITIONAL.values())


def _fields(arguments: Sequence[str]) -> dict[str, str]:
    """The type of each flag of the command, as written in its dataclass."""
    command = COMMANDS.get(arguments[0]) if arguments else None
    return {field.name: str(field.type) for field in dataclasses.fields(command)} if command else {}


def _expected(name: str, arguments: Sequence[str]) -> str:
    kind = _fields(arguments).get(name, "str")
    choices = re.findall(r"Literal\[(.*?)\]", kind)
    if choices:
        return f"one of {choices[0]}".replace("'", "")
    if "str" in kind:
        return "text"
    return "a whole number" if "int" in kind else "a number"
