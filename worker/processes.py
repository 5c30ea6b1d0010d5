"""Processes: saying `ready`, ending on SIGTERM, and a supervisor for several of them on one machine."""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import TYPE_CHECKING

from worker.errors import WorkerError
from worker.settings import SUPERVISOR_VARIABLE

if TYPE_CHECKING:
    from worker.liveness import Watch

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # prctl(2)
_LONGEST_PAUSE = 30.0
_STABLE_SECONDS = 60.0
_PATIENCE_SECONDS = 60.0
_LOOK_SECONDS = 2.0


class Stop:
    """Set by SIGTERM or SIGINT: a long-running command finishes what it holds and ends."""

    def __init__(self) -> None:
        self._asked = False
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._ask)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the end is asked for, at most so long; True where it is."""
        # No threading.Event: set from a signal handler it can lock up the wait that the signal interrupted.
        deadline = None if seconds is None else time.monotonic() + seconds
        while not self._asked and (deadline is None or time.monotonic() < deadline):
            time.sleep(0.1 if deadline is None else min(0.1, max(0.0, deadline - time.monotonic())))
        return self._asked

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self._asked = True


def say_ready() -> None:
    """Tell whoever started us that we serve."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


def command(*arguments: str) -> list[str]:
    """Return the command line that runs a subcommand of ours in a child."""
    return [sys.executable, "-P", "-m", "worker.main", *arguments]


@dataclass
class Child:
    """A supervised process: `command` is started again when it dies, or where the watch says that it is stuck.

    inherits: file descriptors that it gets. ended: called when it has ended otherwise than it was asked to.
    """

    name: str
    command: Sequence[str]
    process: "subprocess.Popen[str] | None" = None
    ready: threading.Event = field(default_factory=threading.Event)
    started: float = 0.0
    pause: float = 1.0
    start_at: float = 0.0
    watch: "Watch | None" = None
    look_at: float = 0.0
    inherits: tuple[int, ...] = ()
    ended: Callable[[], object] = lambda: None


class Supervisor:
    """Starts children, starts again what dies, and ends them all together.

    close: called before they are ended, to take in nothing more.
    """

    def __init__(self, children: Sequence[Child], close: Callable[[], None] = lambda: None) -> None:
        self._children, self._close = children, close

    def run(self, stop: Stop, ready: Callable[[], None]) -> None:
        """Supervise until the end is asked for. `ready` is called once, when all children serve.

        Raises WorkerError where one ends before that: it would only fail again.
        """
        announced = False
        try:
            while True:
                for child in self._children:
                    self._tend(child, started=announced)
                if not announced and all(child.ready.is_set() for child in self._children):
                    announced = True
                    ready()
                if stop.wait(0.2):
                    return
        finally:
            self._end()

    def _tend(self, child: Child, *, started: bool) -> None:
        if child.process is None:
            if time.monotonic() >= child.start_at:
                self._start(child)
            return
        code = child.process.poll()
        if code is None:
            if started and child.watch is not None and time.monotonic() >= child.look_at:
                child.look_at = time.monotonic() + _LOOK_SECONDS
                if child.watch.is_stuck():
                    logger.error("%s does nothing while work waits: it is ended.", child.name)
                    os.killpg(child.process.pid, signal.SIGKILL)
            return
        if not started:
            raise WorkerError(f"The {child.name} did not start; what it said stands above.")
        if time.monotonic() - child.started > _STABLE_SECONDS:
            child.pause = 1.0
        logger.error("%s ended with %d; it is started again in %.0f s.", child.name, code, child.pause)
        child.start_at = time.monotonic() + child.pause
        child.pause = min(child.pause * 2, _LONGEST_PAUSE)
        child.process = None
        child.ended()

    def _start(self, child: Child) -> None:
        child.started = time.monotonic()
        if child.watch is not None:
            child.watch.begin()
        child.process = subprocess.Popen(
            child.command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
            # A signal for our process group is for us alone: we end the children one by one, in good order.
            start_new_session=True,
            env={**os.environ, SUPERVISOR_VARIABLE: str(os.getpid())},
            pass_fds=child.inherits,
        )
        threading.Thread(target=_listen, args=(child, child.process), daemon=True).start()

    def _end(self) -> None:
        self._close()
        running = [child.process for child in self._children if child.process is not None]
        for process in running:
            process.terminate()
        deadline = time.monotonic() + _PATIENCE_SECONDS
        for process in running:
            try:
                process.wait(max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                logger.warning("Process %d did not end; it is killed.", process.pid)
                process.kill()
                process.wait()


def _listen(child: Child, process: "subprocess.Popen[str]") -> None:
    """Read what a child says on stdout until it ends."""
    if process.stdout is None:
        return
    with process.stdout:
        for line in process.stdout:
            if line.strip() == "ready":
                child.ready.set()


def die_with_supervisor() -> None:
    """Have the kernel end this process when the supervisor that started it dies, however it dies (Linux only)."""
    supervisor = os.environ.get(SUPERVISOR_VARIABLE)
    if supervisor is None or sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(supervisor):  # it died before we asked
        os.kill(os.getpid(), signal.SIGTERM)
