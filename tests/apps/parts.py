"""What the applications share: patience, and processes that end with them."""

import os
import signal
import subprocess
import sys
import tempfile
import time

PATIENCE_SECONDS = 60


def eventually(what, condition):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"


class Spawned:
    """A process in a group of its own; what it prints is kept and shown if the test fails."""

    def __init__(self, command):
        self.output = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self.output,
            stderr=subprocess.STDOUT,
            cwd=os.path.dirname(os.path.abspath(__file__)),
            start_new_session=True,
        )

    def stop(self):
        if sys.exc_info()[0] is not None:
            self.output.seek(0)
            print(f"--- {self.process.args} printed:\n{self.output.read()}---", file=sys.stderr)
        self.process.terminate()
        try:
            self.process.wait(PATIENCE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.process.wait()


def spawn(command):
    return Spawned(command)
