"""A process that has imported the libraries once, and forks from itself every stage.

Of the six seconds that the process of a training needs before its first update, five are imports
of torch and of what lightning-fabric imports, and ``dvc repro`` starts a process for each of its 88
stages. So ``make reproduce`` starts this one beside it and sets ``$LAUNCH`` to the client that asks
it (:mod:`stages.scoreboard.prefork_client`). A stage is a process of its own as before, with the
command, folder, environment and terminal that DVC gives it; only the libraries are there already.
Modules of ``stages`` are not: each process reads them anew.

It is not used where LAUNCH is set, where nvidia-smi is installed, so that there may be a GPU (a
process that has asked CUDA must not fork), or outside Linux.
"""

import gc
import importlib
import json
import os
import runpy
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from stages import die_with_parent

CLIENT = Path(__file__).with_name("prefork_client.py")
LIBRARIES = (
    *("numpy", "pandas", "scipy.ndimage", "scipy.stats", "cv2", "jaxtyping", "beartype"),
    *("torch", "torch._dynamo", "torchvision", "lightning_fabric", "kornia", "safetensors.torch"),
    "skimage.metrics",
)
# of a stage's environment; in all else it is the server's, or the stage starts by itself
ITS_OWN = ("PWD", "OLDPWD", "SHLVL", "_", "LAUNCH", "PYTHONUNBUFFERED")
DVC = "DVC_"  # begins the names of what DVC tells a stage, its own too


@dataclass
class Client:
    """One that waits for its stage."""

    connection: socket.socket
    pid: int
    pidfd: int


class Server:
    """Forks a child for every request that comes, and tells each client how its own has ended.

    ``env`` is what this process was started with: libraries may have added to it since.
    """

    def __init__(self, listener: socket.socket, env: Mapping[str, str]):
        self.listener, self.env = listener, env
        self.clients: dict[int, Client] = {}
        self.selector = selectors.DefaultSelector()
        self.selector.register(listener, selectors.EVENT_READ)

    def serve(self) -> tuple[dict, list[int]]:
        """Return a request and its terminal, in the child alone; the server goes on to SIGTERM."""
        while True:
            for key, _ in self.selector.select():
                if key.fileobj is self.listener:
                    asked = self.begin()
                    if asked is not None:
                        return asked
                elif key.data.pid not in self.clients:
                    continue  # it ended in the same round
                elif key.fileobj == key.data.pidfd:
                    self.end(key.data)
                else:
                    self.pass_on(key.data)

    def begin(self) -> tuple[dict, list[int]] | None:
        """Take a request and fork; return what was asked in the child, None in the server."""
        connection, _ = self.listener.accept()
        asked = receive(connection, self.env)
        if asked is None:
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            self.selector.close()
            self.listener.close()
            connection.close()
            for other in self.clients.values():
                other.connection.close()
                os.close(other.pidfd)
            return asked
        for descriptor in asked[1]:
            os.close(descriptor)
        client = self.clients[pid] = Client(connection, pid, os.pidfd_open(pid))
        with suppress(OSError):  # its client was killed: heard at its next reading
            connection.sendall(f"started {pid}\n".encode())
        self.selector.register(connection, selectors.EVENT_READ, client)
        self.selector.register(client.pidfd, selectors.EVENT_READ, client)
        return None

    def end(self, client: Client) -> None:
        """Tell the client how its stage has ended, and forget both."""
        status = os.waitstatus_to_exitcode(os.waitpid(client.pid, 0)[1])
        with suppress(OSError):  # its client was killed
            client.connection.sendall(f"{status}\n".encode())
        if client.connection in self.selector.get_map():
            self.selector.unregister(client.connection)
        self.selector.unregister(client.pidfd)
        client.connection.close()
        os.close(client.pidfd)
        del self.clients[client.pid]

    def pass_on(self, client: Client) -> None:
        """Send the signals that a client got to its stage; SIGKILL if the client was killed."""
        try:
            said = client.connection.recv(64)
        except OSError:
            said = b""
        for number in said or [signal.SIGKILL]:
            signal.pidfd_send_signal(client.pidfd, number)
        if not said:
            self.selector.unregister(client.connection)


def receive(connection: socket.socket, env: Mapping[str, str]) -> tuple[dict, list[int]] | None:
    """Return a request and its terminal; None if it is cut off, or its stage must start by itself.

    That is: it is no ``python -m``, or in another folder, or in another environment.
    """
    head, terminal, _, _ = socket.recv_fds(connection, 8, 3)
    words = b""
    wanted = int.from_bytes(head) if len(head) == 8 else 0
    while len(words) < wanted and (part := connection.recv(wanted - len(words))):
        words += part
    request = json.loads(words) if wanted and len(words) == wanted else None
    if request is None or not (
        request["command"][:2] == ["python", "-m"]
        and request["cwd"] == os.getcwd()
        and shared(request["env"]) == shared(env)
    ):
        for descriptor in terminal:
            os.close(descriptor)
        return None
    return request, terminal


def shared(env: Mapping[str, str]) -> dict[str, str]:
    """Return what of an environment the libraries may have read when they were imported."""
    return {
        name: value
        for name, value in env.items()
        if name not in ITS_OWN and not name.startswith(DVC)
    }


def become(request: dict, terminal: list[int]) -> None:
    """Be what was asked for, ``python -m MODULE ...``, in a process that has just been forked."""
    die_with_parent()
    for target, descriptor in enumerate(terminal):
        os.dup2(descriptor, target)
        os.close(descriptor)
    os.environ.update(request["env"])
    sys.argv = list(request["command"][2:])
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


@contextmanager
def prefork(env: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start a server for this folder; yield the environment for ``dvc repro``, LAUNCH in it.

    The server has ``env`` and ends with the context, or with this process. A stage that comes
    before its imports are done waits for them. Where it is not to be used ``env`` comes back as it
    is; where it does not start, or ends, stages start by themselves.
    """
    if sys.platform != "linux" or "LAUNCH" in env or shutil.which("nvidia-smi"):
        yield dict(env)
        return
    with tempfile.TemporaryDirectory(prefix="prefork-") as folder:  # mode 0700
        address = f"{folder}/socket"
        launch = f"{sys.executable} -I -S {os.path.relpath(CLIENT)} {address}"
        if len(launch.split()) != 5:  # a blank in a path
            yield dict(env)
            return
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address)
            listener.listen(64)
            server = subprocess.Popen(
                [sys.executable, "-m", "stages.scoreboard.prefork", str(listener.fileno())],
                env={**env, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                process_group=0,  # a Ctrl-C is the stage's
                preexec_fn=die_with_parent,
                pass_fds=[listener.fileno()],
            )
        try:
            yield {**env, "LAUNCH": launch}
        finally:
            server.terminate()
            server.wait()


def main(descriptor: int) -> None:
    """Be the server, which listens there, and in its children the stages."""
    env = dict(os.environ)
    with socket.socket(fileno=descriptor) as listener:
        for library in LIBRARIES:
            importlib.import_module(library)
        if threading.active_count() != 1:
            raise RuntimeError(f"a library has started threads: {threading.enumerate()}")
        gc.collect()
        gc.freeze()  # children do not copy pages for counting what is there already
        asked = Server(listener, env).serve()
    become(*asked)


if __name__ == "__main__":
    main(int(sys.argv[1]))
