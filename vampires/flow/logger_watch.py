"""A logger's processes, watched: what should run and does not is started again.

Whether it should run is what its FPS says: who stopped it, or removed it, wanted that. A logger
that died while it was saving saves again as soon as it runs; what passed in between is in no
file, and is told.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vampires import logger_control as loggers
from vampires.fps import FPSError, FPSNotFound
from vampires.fps_control import ActionFailed, FPSControl, Light
from vampires.logger_conf import stream_fault
from vampires.logger_parameters import fps_name, open_logger_fps

LOOK_S = 0.25
BACK_OFF_S = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
STEADY_S = 30.0

Say = Callable[[str], None]


class LoggerWatch:
    """Looks in a thread of its own: starting takes a moment, in which others are watched."""

    def __init__(self, stream: str, shm_dir: Path, say: Say) -> None:
        self._stream = stream
        self._shm_dir = shm_dir
        self._say = say
        self._control = FPSControl(fps_name(stream), shm_dir)
        self._saving = False  # when it was last seen alive
        self._owed = False  # it died, and was not started again yet
        self._failures = 0
        self._again_at = 0.0
        self._started_at = 0.0
        self._looked_at = 0.0
        self._thread: threading.Thread | None = None
        self.restarts = 0
        self.error = ""

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {"restarts": self.restarts, "error": self.error}

    def look(self) -> None:
        """Looks, if it is time; never waits."""
        if self._thread is not None:
            if self._thread.is_alive():
                return
            self._thread = None
        now = time.monotonic()
        if now - self._looked_at < LOOK_S or now < self._again_at:
            return
        self._looked_at = now
        dead = self._dead()
        if dead and not (dead == "run" and stream_fault(self._stream, self._shm_dir)):
            self._thread = threading.Thread(target=self._start_again, args=(dead,))
            self._thread.start()

    def close(self) -> None:
        """Waits for what is under way."""
        if self._thread is not None:
            self._thread.join()

    def _dead(self) -> str:
        """What should run and does not: "run" or "conf"; "" for nothing."""
        try:
            with open_logger_fps(self._stream, self._shm_dir) as fps:
                _, conf, run = self._control.lights(fps, panes=())  # tmux is not asked
                if run is Light.ALIVE:
                    self._owed = False
                    if fps["state"] not in ("stopped", "starting"):
                        self._saving = bool(fps["saveON"])
        except FPSNotFound:  # removed: not wanted any more
            self._saving = self._owed = False
            return ""
        except (FPSError, ActionFailed) as error:
            self.error = str(error)
            return ""
        self._owed |= run is Light.DEAD
        if self._owed:
            return "run"
        self._saving &= run is Light.ALIVE  # else it was stopped
        return "conf" if conf is Light.DEAD else ""

    def _start_again(self, dead: str) -> None:
        if time.monotonic() - self._started_at > STEADY_S:
            self._failures = 0
        saving = self._saving
        try:
            with self._control.alone():
                if self._dead() != dead:
                    return  # somebody was starting it just then
                self._say(f"{self._control.name}: its {dead} process died; starting it again")
                self._control.tmux_start()
                self._control.conf_start()
                if dead == "run":
                    self._control.run_start()
            self.restarts += 1
            if dead == "run":
                loggers.await_ready(self._stream, self._shm_dir)
                if saving:
                    self._save_again()
            self.error = ""
        except (ActionFailed, FPSError, OSError) as error:
            self._saving = saving
            self.error = str(error)
            self._say(f"{self._control.name}: {error}")
        finally:
            self._started_at = time.monotonic()
            delay_s = BACK_OFF_S[min(self._failures, len(BACK_OFF_S) - 1)]
            self._again_at = self._started_at + delay_s
            self._failures += 1

    def _save_again(self) -> None:
        (outcome,) = loggers.start([self._stream], self._shm_dir)
        if outcome.error:
            raise ActionFailed(outcome.error)
        self._say(
            f"{self._control.name}: saving again; frames that came meanwhile are in no file"
        )
