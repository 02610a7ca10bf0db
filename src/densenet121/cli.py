"""The command line: ``main(argv)`` parses, runs one command, and returns the exit status.

0 done, 1 the run failed or its result is partial, 2 wrong usage, 143 stopped by a signal after
saving. A user's mistake is one line on stderr.
"""

import contextlib
import gc
import io
import logging
import os
import re
import select
import stat
import sys
import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from densenet121.commands import FAILED, STOPPED, WRONG_USAGE
from densenet121.config import (
    AuditConfig,
    AverageConfig,
    BenchConfig,
    CalibrateConfig,
    CardConfig,
    CompareConfig,
    ConvertConfig,
    DemoConfig,
    EvalConfig,
    ExportConfig,
    InspectConfig,
    LrFindConfig,
    MetricsConfig,
    PackConfig,
    PredictConfig,
    ProbeConfig,
    RankTableConfig,
    ReportConfig,
    ServeConfig,
    ShowConfig,
    SplitConfig,
    StudyConfig,
    TrainConfig,
)
from densenet121.config.arguments import settings_and_sources
from densenet121.config.files import sources_named
from densenet121.config.flags import labels_of, nearest
from densenet121.config.help import overview
from densenet121.utils.errors import NO_MEMORY, InputError, UsageError, visible
from densenet121.utils.files import FULL
from densenet121.utils.output import drop_output, unsaid
from densenet121.utils.signals import STOPPED_TEXT, importing
from densenet121.utils.threads import limit_spinning
from densenet121.version import __version__

DESCRIPTION = "Train, evaluate and ship DenseNet-121 image classifiers."
# Each command calls run() of the module with its name in densenet121.commands (lr-find: lr_find).
GROUPS: dict[str, dict[str, type[Any]]] = {
    "train and evaluate": {
        "train": TrainConfig,
        "eval": EvalConfig,
        "study": StudyConfig,
        "probe": ProbeConfig,
        "lr-find": LrFindConfig,
        "metrics": MetricsConfig,
        "compare": CompareConfig,
        "report": ReportConfig,
        "card": CardConfig,
        "demo": DemoConfig,
    },
    "use a trained network": {
        "predict": PredictConfig,
        "calibrate": CalibrateConfig,
        "export": ExportConfig,
        "serve": ServeConfig,
    },
    "data and weights": {
        "audit": AuditConfig,
        "show": ShowConfig,
        "split": SplitConfig,
        "pack": PackConfig,
        "inspect": InspectConfig,
        "convert": ConvertConfig,
        "average": AverageConfig,
    },
    "measure and set up": {"bench": BenchConfig, "rank-table": RankTableConfig},
}
COMMANDS = {name: config for group in GROUPS.values() for name, config in group.items()}
_OWN_FLAGS = ("--help", "--version")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command in ``argv`` (default: the process's arguments) and return its exit status."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal or a job with an old locale gets escapes for what it cannot show.
        sys.stdout.reconfigure(errors="backslashreplace")
    # About metadata that nobody uses, for every image; a damaged image is an error of its own.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # With a traceback, where no more files can be opened; the command says so itself.
    logging.getLogger("torch.autograd.profiler").setLevel(logging.CRITICAL)
    sources: dict[str, str] = {}
    try:
        command, config, sources = _parsed(arguments)
        status: int = _load(command).run(config)
        return _fail(fault, arguments, status=FAILED) if (fault := _unwritten()) else status
    except SystemExit:  # after --help and --version
        if fault := _unwritten():
            return _fail(fault, arguments, status=FAILED)
        raise
    except UsageError as error:
        return _fail(error, arguments, status=WRONG_USAGE, sources=sources)
    except (InputError, OSError) as error:
        if isinstance(error, BrokenPipeError) and _reader_left():
            return FAILED
        said = error if _names_fault(error) else _no_memory(error)
        return _fail(said, arguments, status=FAILED, sources=sources)
    except KeyboardInterrupt:
        return _fail(STOPPED_TEXT, arguments, status=STOPPED)
    except (MemoryError, ImportError, RuntimeError) as error:
        if not _lacks_memory(error):
            raise
        return _fail(_no_memory(error), arguments, status=FAILED)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # of a library in Rust, such as safetensors
            raise
        said = f"a library panicked ({error}), as where memory ends; everything saved is intact"
        return _fail(said, arguments, status=FAILED)


# Also what the loader of libraries, the system, oneDNN, C++ and Python say; the last one where the
# limit of a user's threads is reached.
_LACKS = (
    *(*NO_MEMORY, "failed to map segment", "cannot allocate memory"),
    *("could not create a primitive", "bad_alloc", "can't start new thread"),
)


def _lacks_memory(error: Exception) -> bool:
    said = str(error).lower()
    return isinstance(error, MemoryError) or any(words in said for words in _LACKS)


def _names_fault(error: InputError | OSError) -> bool:
    """Whether it is a message of ours or names a file; the loader of libraries names none."""
    return isinstance(error, InputError) or bool(error.filename) or not _lacks_memory(error)


def _no_memory(error: Exception) -> str:
    text = str(error).strip().partition("\n")[0] or "an allocation failed"
    error.__traceback__ = error.__context__ = None  # frees what the call that failed holds
    return f"not enough memory ({text}); everything saved before is intact"


def parse(arguments: Sequence[str]) -> tuple[str, Any]:
    """The command and its settings.

    Raises:
        UsageError: the arguments are wrong; the text is one line.
        SystemExit: 0, after --help, --version and --print_config.
    """
    command, config, _ = _parsed(arguments)
    return command, config


def _parsed(arguments: Sequence[str]) -> tuple[str, Any, dict[str, str]]:
    """As ``parse``; also the recipe or file of each setting that was not given by a flag."""
    if not arguments:
        raise UsageError(f"name a command: {', '.join(COMMANDS)}; see densenet121 --help")
    first = arguments[0]
    if first in COMMANDS:
        return first, *settings_and_sources(first, COMMANDS[first], arguments[1:])
    if first in ("-h", "--help", "--version"):
        version = f"densenet121 {__version__}\n"
        text = version if first == "--version" else overview(DESCRIPTION, GROUPS)
        print(text, end="")  # noqa: T201 (the requested output)
        raise SystemExit(0)
    if not first.startswith("-"):
        hint = nearest(first, COMMANDS) or "; see densenet121 --help"
        raise UsageError(f"unknown command {first}{hint}")
    flag = first.partition("=")[0]
    if flag in ("--config", "--print_config", *_labels(arguments).values()):
        raise UsageError(f"name a command before {flag}: {', '.join(COMMANDS)}")
    raise UsageError(f"unknown flag {flag}{nearest(flag, _OWN_FLAGS)}")


def _load(command: str) -> ModuleType:
    """Import the module of a command; only now, because importing torch takes seconds.

    The garbage collector would scan torch's half a million objects many times, during the import
    and after it. They all live until the process ends, so it need not scan them.

    Raises:
        InputError: the working directory was removed.
    """
    try:
        Path.cwd()
    except FileNotFoundError:  # torch's libraries end the process there
        raise InputError("the working directory was removed; change to another") from None
    name = f"densenet121.commands.{command.replace('-', '_')}"
    if name in sys.modules:
        return sys.modules[name]
    if command != "bench":  # other libraries are measured as they are
        limit_spinning()
    collecting = gc.isenabled()
    gc.disable()
    try:
        with importing():
            return import_module(name)
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def _reader_left() -> bool:
    """Whether the program that reads the output has ended, as head does; nothing is said then."""
    left = False
    try:
        output = sys.stdout.fileno()
        reader = select.poll()
        reader.register(output, 0)
        left = any(event & select.POLLERR for _, event in reader.poll(0))
        sys.stdout.flush()
    except BrokenPipeError:
        left = True
    except (AttributeError, OSError, ValueError):  # no output, or one that is no file
        return False
    if left:
        drop_output()
    return left


def _unwritten(error: object = None) -> str:
    """Why standard output cannot be written, as on a full disk; what is left of it is dropped.

    It is no fault that the program that reads it has ended. An ``error`` that names no file is that
    of the output where this is a file: those of other files name them.
    """
    if _reader_left():
        return ""
    try:
        output = sys.stdout.fileno()
        is_file = not (os.isatty(output) or stat.S_ISFIFO(os.fstat(output).st_mode))
    except (AttributeError, OSError, ValueError):  # no output, or one that is no file
        return ""
    found = unsaid()
    if isinstance(error, OSError) and error.filename is None and error.errno in FULL and is_file:
        found = error
    try:
        sys.stdout.flush()
    except OSError as fault:
        drop_output()
        found = fault
    return f"standard output: cannot be written ({found.strerror})" if found else ""


def _fail(
    error: object,
    arguments: Sequence[str],
    *,
    status: int,
    sources: Mapping[str, str] | None = None,
) -> int:
    """Print an error as one line, with each `field` replaced by its flag.

    Of settings that it names it also says the recipe or file that they are of, by ``sources``.
    """
    line, fault = str(error), _unwritten(error)
    if isinstance(error, OSError):
        if isinstance(error.filename, str) and not error.filename2:
            line = f"{error.filename}: {error.strerror}"
        elif fault:
            line = fault
    # Where memory or descriptors ended, the names of flags cannot be found either.
    with contextlib.suppress(MemoryError, OSError, ImportError):
        labels = _labels(arguments)
        line = re.sub(r"`(\w+)`", lambda name: labels.get(name[1], name[0]), line)
    line += sources_named(line, sources or {})
    with contextlib.suppress(BrokenPipeError):
        print(f"densenet121: {visible(' '.join(line.split()))}", file=sys.stderr)  # noqa: T201
    return status


def _labels(arguments: Sequence[str]) -> dict[str, str]:
    """Field to flag for all commands; those of the current command take precedence."""
    own = COMMANDS.get(arguments[0]) if arguments else None
    configs = [*COMMANDS.values(), *([own] if own else [])]
    return {name: label for config in configs for name, label in labels_of(config).items()}
