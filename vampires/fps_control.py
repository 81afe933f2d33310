"""What can be done with the processes of an FPS: start, stop, remove.

As milk-fpsCTRL does it: the conf and run processes of an FPS live in windows of a tmux session
of its name, and are started by typing the names of shell functions into them. Unlike there,
each action returns when the thing has happened, or says why it did not.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from enum import Enum
from pathlib import Path

from vampires import process_id, tmux
from vampires.fps import FPS, FPSError, FPSKeyError, Header, fps_directory, layout
from vampires.fps.errors import one_line
from vampires.fps.image import conf_directory, data_directory
from vampires.fps.layout import Signal, Status

WINDOWS = ("ctrl", "conf", "run")
TIMEOUT_S = 5.0
POLL_S = 0.005
# Passed on to the shells in tmux, whose server may have been started with others.
PASSED_ON = (
    "MILK_SHM_DIR",
    "MILK_PROC_DIR",
    "VAMPIRES_CONFIG",
    "VAMPIRES_INSTRUMENT",
    "TMUX_TMPDIR",
)


class ActionFailed(Exception):
    """An action did not happen; the text says why, in one line."""

    def __str__(self) -> str:
        return one_line(str(self.args[0]) if self.args else "")


class Light(Enum):
    """Green, gray, red: DEAD is what should run and does not."""

    ALIVE = "alive"
    IDLE = "idle"
    DEAD = "dead"


class FPSControl:
    """Actions on one FPS. Each raises ActionFailed when it did not happen in timeout_s."""

    def __init__(self, name: str, shm_dir: Path | str | None = None) -> None:
        self.name = name
        self.shm_dir = fps_directory() if shm_dir is None else Path(shm_dir)
        self._is_alone = False

    @contextlib.contextmanager
    def alone(self, timeout_s: float = TIMEOUT_S) -> Iterator[None]:
        """Within it nobody else acts on the FPS, except this object.

        Two who start a process at the same time would type it twice, and the second line would
        start it again after its end. Raises ActionFailed when another does not finish.
        """
        if self._is_alone:
            yield
            return
        lock_fd = self._lock(time.monotonic() + timeout_s)
        self._is_alone = True
        try:
            yield
        finally:
            self._is_alone = False
            if lock_fd >= 0:
                os.close(lock_fd)

    def _lock(self, deadline: float) -> int:
        """A descriptor of the folder of the FPS, locked; -1 where it has none."""
        while True:
            with self._opened() as fps:
                header = fps.header()
            folder = Path(header.workdir) / header.datadir
            try:
                fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                return -1
            with contextlib.suppress(OSError):  # locked by another, or just taken away
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.path.samestat(os.stat(folder), os.fstat(fd)):
                    return fd
            os.close(fd)
            if time.monotonic() > deadline:
                raise ActionFailed(f"somebody else is acting on {self.name}; try again")
            time.sleep(POLL_S)

    # -- what is ------------------------------------------------------------------------------

    def lights(
        self, fps: FPS | None = None, panes: Sequence[tmux.Pane] | None = None
    ) -> tuple[Light, Light, Light]:
        """Of tmux, conf and run. fps, panes: if they were looked at already."""
        with self._opened(fps) as opened:
            status = opened.status()
            conf, run = opened.conf_running(), opened.run_running()
        session = self._session_pid(panes) != 0
        return (
            _light(session, bool(status & Status.TMUXCTRL)),
            _light(conf, bool(status & Status.CMDCONF)),
            _light(run, bool(status & Status.CMDRUN)),
        )

    def numbers(
        self, fps: FPS | None = None, panes: Sequence[tmux.Pane] | None = None
    ) -> tuple[int, int, int]:
        """Process ids of the shell in the ctrl window, of conf and of run; 0: never was."""
        with self._opened(fps) as opened:
            header = opened.header()
        return self._session_pid(panes), header.confpid, header.runpid

    def _session_pid(self, panes: Sequence[tmux.Pane] | None) -> int:
        if panes is None:
            with contextlib.suppress(tmux.TmuxError):
                panes = tmux.panes()
        session = tmux.session_name(self.name)
        return next((pane.pid for pane in panes or () if pane.session == session), 0)

    @contextlib.contextmanager
    def _opened(self, fps: FPS | None = None) -> Iterator[FPS]:
        try:
            if fps is not None:
                yield fps
                return
            with FPS.open(self.name, self.shm_dir) as opened:
                yield opened
        except (FPSError, tmux.TmuxError) as error:
            raise ActionFailed(str(error)) from None

    # -- tmux ---------------------------------------------------------------------------------

    def tmux_start(self) -> None:
        """Starts the session with its windows and their functions.

        One that is there is kept when it was started for this FPS as it is now, or while its
        processes run; windows that it lacks are added.
        """
        with self._opened() as fps, self.alone():
            self._check_owner(fps)
            header = fps.header()
            workdir = Path(header.workdir)
            if not workdir.is_absolute():
                raise ActionFailed(
                    f"{self.name}: its work directory is {header.workdir!r}, expected a path "
                    "that begins with '/'"
                )
            setup = self._shell_setup(fps, header)
            windows = self._windows(fps, self._mark(setup))
            try:
                file = workdir / header.datadir / "tmux-windows.bash"
                (file.parent / "fps").mkdir(parents=True, exist_ok=True)
                file.write_text(setup)
            except OSError as error:
                raise ActionFailed(f"cannot write to {workdir}: {error.strerror}") from None
            shell = shlex.join(["bash", "--rcfile", str(file), "-i"])
            if windows:
                for missing in (window for window in WINDOWS if window not in windows):
                    tmux.add_window(self.name, missing, workdir, shell)
            else:
                self._new_session(workdir, shell, self._mark(setup))
            fps.change_status(set=Status.TMUXCONF | Status.TMUXRUN | Status.TMUXCTRL)

    def _new_session(self, workdir: Path, shell: str, mark: str) -> None:
        try:
            tmux.new_session(self.name, WINDOWS, workdir, shell, mark)
        except tmux.TmuxError:
            if tmux.mark_of(self.name) != mark:  # else somebody was faster
                raise

    def tmux_stop(self, timeout_s: float = TIMEOUT_S) -> None:
        """Ends the session; the processes in it are stopped first, and lose nothing."""
        deadline = time.monotonic() + timeout_s
        with self._opened() as fps, self.alone(timeout_s):
            self._check_session()
            if fps.run_running():
                self.run_stop(deadline - time.monotonic())
            if fps.conf_running():
                self.conf_stop(deadline - time.monotonic())
            tmux.kill_session(self.name)
            fps.change_status(clear=Status.TMUXCONF | Status.TMUXRUN | Status.TMUXCTRL)

    def _mark(self, setup: str) -> str:
        """What a session that was started with this setup is marked with."""
        return f"{hashlib.sha256(setup.encode(errors='replace')).hexdigest()[:16]} {self.name}"

    def _check_session(self) -> str:
        """The mark of the session. ActionFailed when it is that of another FPS, whose name
        tmux cannot tell from this one."""
        mark = tmux.mark_of(self.name)
        _, _, owner = mark.partition(" ")
        if owner and owner != self.name:
            raise ActionFailed(
                f"the tmux session {tmux.session_name(self.name)!r} is that of the FPS "
                f"{owner!r}; choose a name that differs in more than punctuation"
            )
        return mark

    def _windows(self, fps: FPS, mark: str) -> list[str]:
        """The windows of the session. One that is of no use is ended, and has none."""
        session = tmux.session_name(self.name)
        windows = [pane.window for pane in tmux.panes() if pane.session == session]
        if windows and self._check_session() != mark:
            # milk's, or from before the FPS was made anew: its functions do something else.
            if fps.conf_running() or fps.run_running():
                return windows
            tmux.kill_session(self.name)
            return []
        return windows

    def _check_owner(self, fps: FPS) -> None:
        """An FPS names the program that its shells run, and where: only its owner's may."""
        uid = fps.owner_uid()
        if uid != os.geteuid():
            raise ActionFailed(
                f"{fps.path} belongs to user {uid}; only they can start its processes"
            )

    def _shell_setup(self, fps: FPS, header: Header) -> str:
        """What each window's shell reads at its start."""
        loads = "".join(f"mload {module};" for module in fps.modules())
        indices = " ".join(header.name.split("-")[1:])
        programs = Path(sys.executable).parent
        environment = {key: os.environ[key] for key in PASSED_ON if key in os.environ}
        environment["MILK_SHM_DIR"] = os.fspath(self.shm_dir)

        def call(action: str, prefix: str = "") -> str:
            words = f"{loads} {header.callfuncname} {action} {indices}"
            quoted = prefix + _in_double_quotes(words)
            program = shlex.quote(f"{header.callprogname}-exec")
            return f'MILK_FPSPROCINFO=1 {program} -n {shlex.quote(header.name)} "{quoted}"'

        lines = [
            "[ -r ~/.bashrc ] && . ~/.bashrc",
            f"export PATH={shlex.quote(str(programs))}:$PATH",
            *(f"export {key}={shlex.quote(value)}" for key, value in environment.items()),
            f"cd {shlex.quote(header.workdir)}",
            "[ -r ../fpstmuxenv ] && . ../fpstmuxenv",
            "[ -r fpstmuxenv ] && . fpstmuxenv",
            f"fpsconfstart() {{ {call('_CONFSTART_')}; }}",
            f"fpsrunstart() {{ {call('_RUNSTART_', '${TCSETCMDPREFIX}')}; }}",
            f"fpsrunstop() {{ {call('_RUNSTOP_')}; }}",
        ]
        return "\n".join(lines) + "\n"

    def _type(self, fps: FPS, window: str, line: str) -> None:
        self._check_owner(fps)
        if not tmux.has_session(self.name):
            raise ActionFailed(
                f"there is no tmux session {tmux.session_name(self.name)!r}; start it first"
            )
        self._check_session()
        tmux.type_line(self.name, window, " " + line)  # not for the shell's history

    def _start(self, fps: FPS, window: str, line: str, commanded: Status) -> None:
        """Types the line, in one go: the process that starts reads what comes after."""
        fps.change_status(set=commanded)
        try:
            self._type(fps, window, line)
        except (ActionFailed, tmux.TmuxError):
            fps.change_status(clear=commanded)
            raise

    # -- conf ---------------------------------------------------------------------------------

    def conf_start(self, timeout_s: float = TIMEOUT_S) -> None:
        """Starts the conf process and waits until it has checked the parameters."""
        with self._opened() as fps, self.alone(timeout_s):
            fps.change_signal(set=Signal.CONFRUN | Signal.UPDATE | Signal.CHECKED)
            if not fps.conf_running():
                line = f"cd {shlex.quote(fps.header().workdir)}; fpsconfstart"
                self._start(fps, "conf", line, Status.CMDCONF)
            self._await(
                lambda: fps.conf_running() and not fps.signal() & Signal.CHECKED,
                timeout_s,
                "conf",
                "the conf process did not start",
            )

    def conf_stop(self, timeout_s: float = TIMEOUT_S) -> None:
        """Asks the conf process to end, and waits for it."""
        with self._opened() as fps, self.alone(timeout_s):
            fps.change_signal(clear=Signal.CONFRUN)
            what = f"the conf process (pid {fps.header().confpid}) did not end"
            self._await(lambda: not fps.conf_running(), timeout_s, "conf", what)
            fps.change_status(clear=Status.CMDCONF)

    def conf_update(self, timeout_s: float = TIMEOUT_S) -> None:
        """Has the parameters checked, and waits for that."""
        with self._opened() as fps:
            if not fps.conf_running():
                raise ActionFailed(f"the conf process of {self.name} does not run; start it")
            fps.change_signal(set=Signal.UPDATE | Signal.CHECKED)
            self._await(
                lambda: not fps.signal() & Signal.CHECKED,
                timeout_s,
                "conf",
                "the parameters were not checked",
            )

    # -- run ----------------------------------------------------------------------------------

    def run_start(self, timeout_s: float = TIMEOUT_S) -> None:
        """Starts the run process, if the parameters are good, and waits until it runs."""
        deadline = time.monotonic() + timeout_s
        with self._opened() as fps, self.alone(timeout_s):
            if fps.run_running():
                return
            self.conf_update(deadline - time.monotonic())
            if not fps.status() & Status.CHECKOK:
                faults = [m.text for m in fps.messages() if not m.code & _INFO]
                raise ActionFailed("; ".join(faults) or "its parameters are not good")
            header = fps.header()
            line = "; ".join([*_run_setup(fps, header), "fpsrunstart"])
            self._start(fps, "run", line, Status.CMDRUN)
            self._await(
                fps.run_running,
                deadline - time.monotonic(),
                "run",
                "the run process did not start",
                lambda: not fps.status() & Status.CMDRUN,
            )

    def run_stop(self, timeout_s: float = TIMEOUT_S) -> None:
        """Interrupts the run process, and waits until it has ended."""
        with self._opened() as fps, self.alone(timeout_s):
            header = fps.header()
            recorded = (header.runpid, header.run_start_ns)
            try:
                process_id.send_signal(*recorded, signal.SIGINT, header.name)
            except PermissionError:
                raise ActionFailed(
                    f"the run process of {self.name} (pid {header.runpid}) belongs to "
                    "another user"
                ) from None
            if not process_id.wait_for_end(*recorded, timeout_s, header.name):
                raise ActionFailed(
                    f"the run process of {self.name} (pid {header.runpid}) was asked to stop "
                    f"and still runs after {timeout_s:.0f} s; it may be writing to a slow disk"
                )
            fps.change_status(clear=Status.CMDRUN | Status.RUN)

    # -- all ----------------------------------------------------------------------------------

    def remove(self, timeout_s: float = TIMEOUT_S) -> None:
        """Stops its processes, ends the session and removes the FPS."""
        with self._opened() as fps, self.alone(timeout_s):
            self._check_owner(fps)
            header = fps.header()
            self.tmux_stop(timeout_s)
            if fps.is_current():
                fps.path.unlink(missing_ok=True)
        # The names that every FPS has, never those that the file says: it may say "/".
        for folder in (data_directory(self.name), conf_directory(self.name)):
            shutil.rmtree(Path(header.workdir) / folder, ignore_errors=True)

    def _await(
        self,
        happened: Callable[[], bool],
        timeout_s: float,
        window: str,
        otherwise: str,
        gave_up: Callable[[], bool] = lambda: False,
    ) -> None:
        """Waits; what the window says last is the reason when it does not happen."""
        deadline = time.monotonic() + timeout_s
        while not happened():
            if time.monotonic() > deadline or (gave_up() and not happened()):
                raise ActionFailed(f"{self.name}: {otherwise}{self._last_words(window)}")
            time.sleep(POLL_S)

    def _last_words(self, window: str) -> str:
        try:
            lines = [line for line in tmux.capture(self.name, window) if line.strip()]
        except tmux.TmuxError:
            return "; its tmux session is not there"
        spoken = [line for line in lines if not line.rstrip().endswith(("$", "#"))]
        return f"; its window says: {spoken[-1].strip()}" if spoken else ""


_INFO = layout.MessageCode.INFO


def _light(alive: bool, wanted: bool) -> Light:
    if alive:
        return Light.ALIVE
    return Light.DEAD if wanted else Light.IDLE


def _in_double_quotes(text: str) -> str:
    """The text as it stands between double quotes in a shell, nothing in it expanded."""
    for character in '\\"`$':
        text = text.replace(character, "\\" + character)
    return text


def _run_setup(fps: FPS, header: Header) -> list[str]:
    """What is typed before the run process starts: its CPUs and its directory."""

    def value(key: str) -> str:
        try:
            return str(fps[key])
        except FPSKeyError:
            return ""

    prefix = ""
    if value("procinfo.cset"):
        prefix = f"csetpmove {value('procinfo.cset')};"
    if value("procinfo.taskset"):
        prefix += f' tsetpmove "{value("procinfo.taskset")}";'
    lines = [
        f"cd {shlex.quote(header.workdir)}",
        f"export TCSETCMDPREFIX={shlex.quote(prefix)}",
        f"mkdir -p {shlex.quote(header.datadir)}",
    ]
    if value("procinfo.NBthread"):
        lines.insert(2, f"export OMP_NUM_THREADS={shlex.quote(value('procinfo.NBthread'))}")
    return lines
