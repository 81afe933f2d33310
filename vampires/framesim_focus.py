"""The focus of the simulated camera: a parameter that scripts and screens set while it runs.

The FPS ``framesim-<stream>`` has the parameter ``focus``, in mm as the stage of the instrument
has it. The optics are invented: a millimetre is NM_PER_MM nm (rms) of defocus, and the stars
are sharpest at the best focus of the options. The camera goes on with the frames that it has
until those of the new focus are rendered; the keyword U_FCSF of each frame tells its focus.
"""

from __future__ import annotations

import math
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from vampires.fps import FPS, FPSError, NewParameter, layout
from vampires.fps.layout import ParameterFlag, ParameterType, Status
from vampires.sky_renderer import RendererGone, SkyOptions, SkyRenderer

PREFIX = "framesim-"
PARAMETER = "focus"
KEYWORD = "U_FCSF"
NM_PER_MM = 100.0
STEP_MM = 0.01
LIMIT_MM = 10.0

_COMMENT = "[mm] focus of the simulated camera"
_POLL_S = 0.02
_CACHE_BYTES = 256 * 2**20
_MIN_POOLS, _MAX_POOLS = 4, 64

KeywordGiven = tuple[int | float | str, str]


@dataclass(frozen=True)
class FocusOptions:
    """The focus at the start, and where the stars are sharpest, in mm."""

    start_mm: float = 0.0
    best_mm: float = 0.0

    @property
    def start_defocus_nm(self) -> float:
        """The defocus of the first frames, rms in nm."""
        return defocus_nm(quantised(self.start_mm), self.best_mm)


@dataclass(frozen=True)
class Scene:
    """What a camera shows from one frame on: pool [P, ny, nx], and keywords of its frames."""

    pool: np.ndarray
    keywords: Mapping[str, KeywordGiven]


def fps_name(stream: str) -> str:
    """Name of the FPS of a simulated camera."""
    return PREFIX + stream


def focus_keywords(focus_mm: float) -> dict[str, KeywordGiven]:
    """The keywords of frames with this focus."""
    return {KEYWORD: (focus_mm, _COMMENT)}


def quantised(focus_mm: float) -> float:
    """The nearest focus for which there are frames: steps of STEP_MM up to LIMIT_MM."""
    limited = min(max(focus_mm, -LIMIT_MM), LIMIT_MM)
    return round(round(limited / STEP_MM) * STEP_MM, 6) + 0.0  # no -0.0


def defocus_nm(focus_mm: float, best_mm: float) -> float:
    """The defocus of the wavefront, rms in nm."""
    return (focus_mm - best_mm) * NM_PER_MM


class PoolCache:
    """The pools rendered last, by their focus.

    A pool stays as it is at least until three others (_MIN_POOLS less one) were asked for after
    it: by then the camera shows it no more.
    """

    def __init__(self, renderer: SkyRenderer) -> None:
        self._renderer = renderer
        self._pools: OrderedDict[float, np.ndarray] = OrderedDict()
        fitting = _CACHE_BYTES // renderer.options.pool_bytes
        self._room = min(max(fitting, _MIN_POOLS), _MAX_POOLS)

    def pool(self, focus_mm: float, best_mm: float) -> np.ndarray:
        """The pool [P, ny, nx] of a focus. Raises RendererGone, OSError."""
        pool = self._pools.pop(focus_mm, None)
        if pool is None:
            # The memory of the oldest: giving memory back would hold the camera up.
            full = len(self._pools) >= self._room
            pool = self._pools.popitem(last=False)[1] if full else self._renderer.new_pool()
            self._renderer.render(pool, defocus_nm(focus_mm, best_mm))
        self._pools[focus_mm] = pool
        return pool


class FocusStage:
    """Follows the parameter in a thread of its own. A context manager; its end removes the FPS.

    show: given each new scene, in that thread. say: given a line when it can follow no longer;
    the camera then keeps the focus that it has.
    """

    def __init__(
        self,
        stream: str,
        sky: SkyOptions,
        options: FocusOptions,
        show: Callable[[Scene], None],
        say: Callable[[str], None],
    ) -> None:
        """Makes the FPS, in place of one left behind. Raises FPSError, OSError."""
        self._options = options
        self._show = show
        self._say = say
        self._stop = threading.Event()
        # Tools of milk leave notes there.
        self._notes = tempfile.TemporaryDirectory(prefix="vampires-framesim-")
        try:
            self._fps = _make_fps(stream, options.start_mm, self._notes.name)
            try:
                self._renderer = SkyRenderer(sky)
            except BaseException:
                self._remove_fps()
                raise
        except BaseException:
            self._notes.cleanup()
            raise
        self._thread = threading.Thread(target=self._follow, name="focus")

    @property
    def focus_mm(self) -> float:
        """The focus that frames have, or soon will."""
        wanted_mm = float(self._fps[PARAMETER])
        return self._options.start_mm if math.isnan(wanted_mm) else quantised(wanted_mm)

    def __enter__(self) -> FocusStage:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._renderer.stop()
        self._thread.join()
        self._renderer.close()
        self._remove_fps()
        self._notes.cleanup()

    def _remove_fps(self) -> None:
        if self._fps.is_current():
            self._fps.path.unlink(missing_ok=True)
        self._fps.close()

    def _follow(self) -> None:
        try:
            self._move_until_stopped(PoolCache(self._renderer))
        except (FPSError, RendererGone, OSError) as error:
            if not self._stop.is_set():
                self._say(f"{error}; the focus stays as it is")

    def _move_until_stopped(self, cache: PoolCache) -> None:
        shown_mm = quantised(self._options.start_mm)
        while not self._stop.wait(_POLL_S):
            if not self._fps.is_current():
                raise FPSError(f"{self._fps.path} was removed or replaced")
            wanted_mm = float(self._fps[PARAMETER])
            if math.isnan(wanted_mm) or quantised(wanted_mm) == shown_mm:
                continue
            shown_mm = quantised(wanted_mm)
            pool = cache.pool(shown_mm, self._options.best_mm)
            self._show(Scene(pool, focus_keywords(shown_mm)))


def _make_fps(stream: str, start_mm: float, workdir: str) -> FPS:
    settable = layout.DEFAULT_INPUT | ParameterFlag.WRITERUN
    focus = NewParameter(
        PARAMETER,
        ParameterType.FLOAT64,
        start_mm,
        "focus of the simulated camera [mm]",
        settable | ParameterFlag.MINLIMIT | ParameterFlag.MAXLIMIT,
        -LIMIT_MM,
        LIMIT_MM,
    )
    fps = FPS.create(
        fps_name(stream),
        [focus],
        description="simulated camera",
        callfuncname="framesim",
        workdir=workdir,
        replace=True,
    )
    fps.record_run_process()
    fps.change_status(set=Status.RUN | Status.CMDRUN)
    return fps
