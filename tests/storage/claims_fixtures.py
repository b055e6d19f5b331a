"""Another process that makes results of the store."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from pathlib import Path
from attrib_core.storage.store import claims
with claims.opened(Path(sys.argv[1])) as held:
    assert all(held.take(key) for key in sys.argv[2:])
    print("held", flush=True)
    sys.stdin.readline()
    held.release(sys.argv[2:3])
    print("released", flush=True)
    sys.stdin.readline()
"""


class Holder:
    """Another process that holds claims."""

    def __init__(self, folder: Path, *held: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(folder), *held],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.printed() == "held"

    def printed(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def next(self) -> None:
        """Let it continue: first it releases its first claim, then it ends."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def end(self, number: int = signal.SIGKILL) -> None:
        self.process.send_signal(number)
        self.process.wait()
