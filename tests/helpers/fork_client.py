"""A command of a shell script, run by a process that has imported everything (fork_server.py).

    python -I -S fork_client.py SOCKET MODULE|SCRIPT.py [ARGUMENT ...]

Its standard files, folder and environment are those of the command, which gets the signals that
end a program; its exit status is that of the command.
"""

import json
import os
import signal
import socket
import sys


def main() -> int:
    path, *command = sys.argv[1:]
    argv = command if command[0].endswith(".py") else ["-m", *command]
    request = {"argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)}  # noqa: PTH109
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    ending = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # until the command has a number
    text = json.dumps(request).encode() + b"\n"
    text = text[socket.send_fds(connection, [text], [0, 1, 2]) :]
    connection.sendall(text)
    lines = connection.makefile()
    number = int(lines.readline())
    for each in ending:
        signal.signal(each, lambda found, _: os.kill(number, found))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ending)
    status = int(lines.readline())
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
