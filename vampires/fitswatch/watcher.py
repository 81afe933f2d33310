"""The thread that watches: waits for the kernel's word and for the clock, and reads headers."""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
from collections.abc import Callable

from vampires.fitswatch.inotify import FOLDER_GONE, IN_Q_OVERFLOW, Inotify
from vampires.fitswatch.snapshot import Snapshot
from vampires.fitswatch.watch import FitsWatch

TICK_S = 1.0  # folders, growing cubes, disks
RELIST_S = 2.0  # folders whose time has changed: finds what the kernel did not tell
READ_S = 0.05  # at a stretch, while there are headers to be read
REST_S = 0.02  # after it, so that the screen has its turn
SCAN_SHARE = 20  # looking for folders takes at most this part of the time


class Watcher:
    """Watches in its own thread until it is closed.

    changed: called there with each new snapshot. poll_s: list the folders that often instead of
    listening to the kernel, for network disks.
    """

    def __init__(
        self, watch: FitsWatch, changed: Callable[[Snapshot], None], poll_s: float | None = None
    ) -> None:
        self._watch = watch
        self._changed = changed
        self._relist_s = poll_s or RELIST_S
        self._inotify: Inotify | None = None
        if poll_s is None:
            with contextlib.suppress(OSError):  # too many in use: then folders are listed
                self._inotify = Inotify()
        self._watches: dict[int, str] = {}
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._ended = False
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)

    def start(self) -> None:
        """Begins; the first snapshot comes when the newest files have been read."""
        self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Ends. A disk that hangs is waited for that long only."""
        self._ended = True
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake_fd, 1)
        if self._thread.is_alive():
            self._thread.join(timeout_s)
        if self._thread.is_alive():
            return
        if self._inotify is not None:
            self._inotify.close()
        if self._wake_fd >= 0:
            os.close(self._wake_fd)
            self._wake_fd = -1

    def _run(self) -> None:
        try:
            self._loop()
        except BaseException as error:  # told by the screen, not written across it
            self.failure = error
            self._changed(Snapshot(()))

    def _loop(self) -> None:
        rescan_at = relist_at = tick_at = 0.0
        left = 0
        while not self._ended:
            now = time.monotonic()
            changed = self._take_events()
            if now >= rescan_at:
                changed |= self._rescan()
                took_s = time.monotonic() - now
                rescan_at = now + max(TICK_S, SCAN_SHARE * took_s)
            if now >= relist_at:
                for path in list(self._watch.folders):
                    changed |= self._watch.relist(path, if_changed=True)
                took_s = time.monotonic() - now
                relist_at = now + max(self._relist_s, SCAN_SHARE * took_s)
            ticked = now >= tick_at
            if ticked:
                self._watch.look_at_growing()
                tick_at = now + TICK_S
            left = self._watch.read(READ_S)
            if changed or ticked:
                self._changed(self._watch.snapshot())
            self._wait(
                REST_S if left else min(rescan_at, relist_at, tick_at) - time.monotonic()
            )

    def _wait(self, timeout_s: float) -> None:
        poll = select.poll()
        poll.register(self._wake_fd, select.POLLIN)
        if self._inotify is not None:
            poll.register(self._inotify, select.POLLIN)
        poll.poll(max(0.0, timeout_s * 1e3))

    def _rescan(self) -> bool:
        new, gone = self._watch.rescan()
        watched = {path: number for number, path in self._watches.items()}
        for path in gone:
            self._forget(watched.get(path))
        if self._inotify is not None:
            for path in self._watch.folders:
                if path not in watched:
                    with contextlib.suppress(OSError):  # gone again, or no watches left
                        self._watches[self._inotify.watch(path)] = path
                        self._watch.relist(path)  # what came before the watch
        return bool(new or gone)

    def _forget(self, number: int | None) -> None:
        if number is not None and self._inotify is not None:
            del self._watches[number]
            self._inotify.forget(number)

    def _take_events(self) -> bool:
        """Looks at what the kernel says has changed; whether anything has."""
        if self._inotify is None:
            return False
        names: dict[str, set[str]] = {}
        for event in self._inotify.events():
            if event.mask & IN_Q_OVERFLOW:
                names |= {path: {""} for path in self._watch.folders}
            path = self._watches.get(event.watch)
            if path is None or path not in self._watch.folders:
                continue
            if event.mask & FOLDER_GONE:
                del self._watches[event.watch]
                self._inotify.forget(event.watch)
                names.setdefault(path, set()).add("")
            elif event.name:
                names.setdefault(path, set()).add(event.name)
        changed = False
        for path, theirs in names.items():
            if "" in theirs:
                changed |= self._watch.relist(path)
            else:
                changed |= self._watch.look_at(path, theirs)
        return changed
