"""Stand in for ``python -m MODULE ...``: let a process that has its imports done run it.

``python -I -S prefork_client.py SOCKET python -m MODULE ...`` is what ``$LAUNCH`` becomes under
``make reproduce``. It hands its terminal, folder and environment to the server of
:mod:`stages.scoreboard.prefork`, passes signals on, and ends as the stage ends. Where there is no
server, or it has another environment, it becomes the command itself. Only what starts quickly is
imported.
"""

import ctypes
import json
import os
import signal
import socket
import sys

PR_SET_PDEATHSIG = 1
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def ended_as(status: int) -> int:
    """End by the signal if ``status`` is negative; return it if not."""
    if status < 0:
        signal.signal(-status, signal.SIG_DFL)
        os.kill(os.getpid(), -status)
    return status


def main(address: str, command: list[str]) -> int:
    """Have the command run; return its status."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # a killed DVC takes it along
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # until they can be passed on
    request = {"cwd": os.getcwd(), "command": command, "env": dict(os.environ)}
    with socket.socket(socket.AF_UNIX) as server:
        try:
            server.connect(address)
            words = json.dumps(request).encode()
            socket.send_fds(server, [len(words).to_bytes(8)], [0, 1, 2])
            server.sendall(words)
            replies = server.makefile("r")
            first = replies.readline()
        except OSError:
            first = ""
        if not first.startswith("started"):
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            os.execvp(command[0], command)
        for number in SIGNALS:
            signal.signal(number, lambda n, _: server.sendall(bytes([n])))
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        last = replies.readline()
        if not last:
            print("error: the process that started the stages has ended", file=sys.stderr)
            return 1
        return ended_as(int(last))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
