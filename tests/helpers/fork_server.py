"""A process that has imported everything and forks: importing torch takes most of a small command.

    python fork_server.py [SOCKET]

Each line of standard input is a JSON object, each is answered by a line. {"argv": ["-m", MODULE,
...], ["-c", CODE, ...] or [SCRIPT, ...], "cwd", "env", "output": [STDOUT, STDERR]} starts a
process, which is an ordinary one from then on, and gives its number; {"wait": NUMBER} gives its
exit status, null while it runs. With SOCKET, requests come from there instead, each by a connection
of its own with the three standard files in place of "output" (fork_client.py); the answers are the
number and, at its end, the exit status. Threads do not survive a fork: there must be one, so
OMP_NUM_THREADS is 1.
"""

import atexit
import gc
import json
import os
import runpy
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# What commands import, and nothing of this package: that depends on the environment.
import cv2  # noqa: F401
import matplotlib.backends.backend_agg
import matplotlib.figure  # noqa: F401
import safetensors.torch  # noqa: F401
import simplejpeg  # noqa: F401
import torch._dynamo  # noqa: F401
import yaml  # noqa: F401


def main() -> None:
    gc.freeze()
    assert len(list(Path("/proc/self/task").iterdir())) == 1, "a thread would be lost in every fork"
    if len(sys.argv) > 1:
        listen(sys.argv[1])
    for line in sys.stdin:
        request = json.loads(line)
        answer = wait(request["wait"]) if "wait" in request else start(request)
        print(json.dumps(answer), flush=True)


def start(request: dict[str, Any], files: Sequence[int] = ()) -> int:
    sys.stdout.flush()
    number = os.fork()
    if number == 0:
        run(request, files)
    return number


def listen(path: str) -> None:
    """Answer connections, each in a process of its own; never returns."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those
    server = socket.socket(socket.AF_UNIX)
    server.bind(path + ".new")
    server.listen()
    Path(path + ".new").rename(path)  # who finds it can connect
    while True:
        connection, _ = server.accept()
        if os.fork() == 0:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            server.close()
            answer(connection)
            os._exit(0)
        connection.close()


def answer(connection: socket.socket) -> None:
    text, files, _, _ = socket.recv_fds(connection, 1 << 16, 3)
    while not text.endswith(b"\n"):
        more = connection.recv(1 << 16)
        if not more:
            return
        text += more
    number = start(json.loads(text), files)
    connection.sendall(f"{number}\n".encode())
    _, status = os.waitpid(number, 0)
    connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


def wait(number: int) -> int | None:
    found, status = os.waitpid(number, os.WNOHANG)
    return os.waitstatus_to_exitcode(status) if found else None


def run(request: dict[str, Any], files: Sequence[int]) -> None:
    """As ``python ARGV`` would, with these standard files if any; never returns."""
    status = 1
    try:
        os.setsid()
        signal.set_wakeup_fd(-1)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        files = files or [
            os.open(os.devnull, os.O_RDONLY),
            *(os.open(path, flags, 0o600) for path in request["output"]),
        ]
        for target, file in enumerate(files):
            os.dup2(file, target)
        sys.stdin = open(0)  # noqa: SIM115
        os.chdir(request["cwd"])
        os.environ.clear()
        os.environ.update(request["env"])
        if encoding := os.environ.get("PYTHONIOENCODING"):
            sys.stdout = open(1, "w", encoding=encoding, newline="\n")  # noqa: SIM115
            sys.stderr = open(2, "w", 1, encoding, "backslashreplace", "\n")  # noqa: SIM115
        argv = request["argv"]
        if argv[0] == "-m":
            sys.argv = argv[1:]
            runpy.run_module(argv[1], run_name="__main__", alter_sys=True)
        elif argv[0] == "-c":
            sys.argv = ["-c", *argv[2:]]
            exec(compile(argv[1], "<string>", "exec"), {"__name__": "__main__"})
        else:
            sys.argv = argv
            sys.path.insert(0, os.path.dirname(argv[0]))  # noqa: PTH120
            runpy.run_path(argv[0], run_name="__main__")
        status = 0
    except SystemExit as stop:
        code = stop.code
        status = code if isinstance(code, int) else 0 if code is None else 1
        if isinstance(code, str):
            print(code, file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status & 0xFF)


if __name__ == "__main__":
    main()
