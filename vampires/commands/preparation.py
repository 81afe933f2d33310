"""Preparing loggers: what is proposed, what it means for crop, rate and disk, and doing it."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vampires import logger_control as loggers
from vampires import logger_parameters
from vampires.commands.cameras import Answer, side_by_side
from vampires.commands.common import UserError
from vampires.commands.cube_options import (
    ARCHIVE,
    MAX_CUBE_FRAMES,
    cube_plan,
    number_of_cubes,
    whole_number,
)
from vampires.commands.datatype import checked_type
from vampires.commands.questions import Questions
from vampires.commands.stream_keyword import DATA_TYPE, set_keyword
from vampires.cube_length import proposed_length
from vampires.disk_room import RoomLevel, bytes_text, disk_room, duration, room_level, room_text
from vampires.fps import FPSError, FPSNotFound, fps_directory
from vampires.free_memory import memory_for_one_of
from vampires.log_directory import (
    DirectoryRefused,
    check_directory,
    parse_directory,
    ready_directory,
)
from vampires.log_volumes import room_fault
from vampires.logger_conf import stream_fault
from vampires.long_directories import full_form
from vampires.stream_facts import StreamFacts, measured_rates, mode_names, stream_facts

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig, Config

T = TypeVar("T")


@dataclass(frozen=True)
class Wishes:
    """What was given; None: to be asked, or taken as proposed."""

    frames: int | None
    cubes: int | None
    place: str | None
    data_type: str | None


@dataclass(frozen=True)
class Place:
    """Where files go: directory/YYYYMMDD/STREAM, or directory itself where not daily."""

    directory: Path
    daily: bool = True


@dataclass(frozen=True)
class Present:
    """How a logger is prepared now."""

    frames: int
    cubes: int
    place: Place
    running: bool
    saving: bool


@dataclass(frozen=True)
class Subject:
    """A camera whose logger is to be made ready."""

    name: str
    facts: StreamFacts
    modes: list[str]
    rate_hz: float
    rate_source: str
    present: Present | None

    @property
    def bytes_per_s(self) -> float:
        return self.rate_hz * self.facts.frame_bytes


def prepare_cameras(
    config: Config, cameras: Sequence[CameraConfig], wishes: Wishes, questions: Questions
) -> list[Answer]:
    """Asks, shows, and makes ready; an answer for each camera. Raises UserError where nothing
    can be done, NoAnswer when the person ended the questions."""
    answers: dict[str, Answer] = {c.name: {"camera": c.name, "error": ""} for c in cameras}
    subjects = _subjects(cameras, answers)
    if subjects:
        preparation = _Preparation(config, subjects, wishes, questions)
        preparation.decide()
        preparation.carry_out(answers)
    return list(answers.values())


def _subjects(cameras: Sequence[CameraConfig], answers: dict[str, Answer]) -> list[Subject]:
    found = []
    for camera in cameras:
        fault = stream_fault(camera.name, fps_directory())
        if not fault:
            try:
                facts = stream_facts(camera.name, fps_directory())
                found.append((camera, facts, _present(camera.name)))
            except (FPSError, OSError) as error:
                fault = str(error)
        answers[camera.name]["error"] = fault
    unknown = [facts.name for _, facts, _ in found if not facts.nominal_hz]
    measured = measured_rates(unknown, fps_directory()) if unknown else {}
    return [
        Subject(
            name=facts.name,
            facts=facts,
            modes=mode_names(facts.shape, [camera.number] if camera.number else [1, 2]),
            rate_hz=facts.nominal_hz or measured[facts.name],
            rate_source=f"keyword {facts.rate_keyword}" if facts.rate_keyword else "measured",
            present=present,
        )
        for camera, facts, present in found
    ]


def _present(stream: str) -> Present | None:
    try:
        with logger_parameters.open_logger_fps(stream) as fps:
            cubes = int(fps["maxfilecnt"])
            directory = full_form(str(fps["dirname"]), fps.path.parent)
            daily = logger_parameters.is_ours(fps) and bool(fps["dailydir"])
            return Present(
                frames=int(fps["cubesize"]),
                cubes=0 if cubes >= logger_parameters.NO_LIMIT_FILES else cubes,
                place=Place(directory, daily),
                running=fps.run_running(),
                saving=fps.run_running() and bool(fps["saveON"]),
            )
    except FPSNotFound:
        return None


class _Preparation:
    def __init__(
        self,
        config: Config,
        subjects: Sequence[Subject],
        wishes: Wishes,
        questions: Questions,
    ) -> None:
        self._config = config
        self._subjects = subjects
        self._wishes = wishes
        self._questions = questions
        self._presents = [subject.present for subject in subjects]

    # -- deciding -----------------------------------------------------------------------------

    def decide(self) -> None:
        """Asks what is not given. Changes nothing."""
        for subject in self._subjects:
            self._questions.say(_shown(subject))
            if subject.present is not None and subject.present.saving:
                self._questions.say(
                    f"{subject.name} is being saved: new values count from its next cube on"
                )
        self._frames = self._decide_frames()
        for subject in self._subjects:
            self._questions.say(_cube_shown(subject, self._frames))
        self._cubes = self._decide_cubes()
        self._place = self._decide_place()
        self._data_type = self._decide_data_type()

    def _decide_frames(self) -> int:
        if self._wishes.frames is not None:
            self._warn(self._wishes.frames)
            return self._wishes.frames
        proposal = self._proposed_frames()
        default = _common([p.frames if p else None for p in self._presents]) or proposal
        if default != proposal and self._warn(default):
            default = proposal
        while True:
            frames = self._questions.ask(
                "frames per cube", f"{default}", _answered(_frames_in_cube)
            )
            if frames == proposal or not self._warn(frames):
                return frames
            if self._questions.agreed(f"{frames} all the same?"):
                return frames
            default = proposal

    def _proposed_frames(self) -> int:
        logging = self._config.logging
        return min(
            proposed_length(
                subject.facts.frame_bytes,
                logging.proposed_cube_bytes,
                subject.modes,
                logging.cube_sizes,
            )
            for subject in self._subjects
        )

    def _warn(self, frames: int) -> bool:
        """Warns of cubes that are too large; returns whether they are."""
        limit = self._config.logging.warn_cube_bytes
        largest = max(self._subjects, key=lambda subject: subject.facts.frame_bytes)
        cube_bytes = frames * largest.facts.frame_bytes
        if cube_bytes <= limit:
            return False
        self._questions.say(
            f"warning: {frames} frames make files of {bytes_text(cube_bytes)}, slow to load "
            f"(above {bytes_text(limit)}); {self._proposed_frames()} are proposed"
        )
        return True

    def _decide_cubes(self) -> int:
        if self._wishes.cubes is not None:
            return self._wishes.cubes
        default = _common([p.cubes if p else None for p in self._presents]) or 0
        return self._questions.ask(
            "number of cubes, 0 for no limit", f"{default}", _answered(number_of_cubes)
        )

    def _decide_place(self) -> Place:
        archive = Place(self._config.logging.archive_directory)
        present = _common([p.place if p else None for p in self._presents])
        default = present or Place(self._config.logging.directory)

        def parse(text: str) -> Place:
            if text == ARCHIVE:
                place = archive
            else:
                directory = parse_directory(text)
                # One that is given again keeps its folders as they are.
                kept = present is not None and directory == present.directory
                place = Place(directory, present.daily if kept and present else True)
            check_directory(place.directory)
            return place

        question = f"{ARCHIVE} ({archive.directory}) or a directory"
        shown = ARCHIVE if default == archive else str(default.directory)
        try:
            if self._wishes.place is not None:
                return parse(self._wishes.place)
            return self._questions.ask(question, shown, parse)
        except DirectoryRefused as error:
            raise UserError(str(error)) from None

    def _decide_data_type(self) -> str:
        """Empty: as it is."""
        if self._wishes.data_type is not None:
            return self._wishes.data_type
        known = self._config.logging.data_types
        present = {subject.facts.data_type for subject in self._subjects}
        shown = ", ".join(f"{s.name} {s.facts.data_type or '-'}" for s in self._subjects)
        if len(present) == 1:
            shown = present.pop() or "none"
        return self._questions.ask(
            "data type", shown, lambda text: "" if text == shown else checked_type(text, known)
        )

    # -- doing --------------------------------------------------------------------------------

    def carry_out(self, answers: dict[str, Answer]) -> None:
        """Makes the directory and the loggers ready. Raises UserError for the directory."""
        directory = self._place.directory
        try:
            ready_directory(directory)
            free = disk_room(directory).free_bytes
        except (DirectoryRefused, OSError) as error:
            raise UserError(str(error)) from None
        speed = sum(subject.bytes_per_s for subject in self._subjects)
        lasts_s = free / speed if speed else None
        self._questions.say(f"plan: {cube_plan(self._frames, self._cubes)}")
        self._questions.say(self._place_shown(free, lasts_s))
        self._mind_room(free, speed)
        options = self._options()

        def prepare(stream: str) -> None:
            loggers.prepare(stream, options[stream])
            if self._data_type:
                error = set_keyword(stream, DATA_TYPE, self._data_type)["error"]
                if error:
                    raise FPSError(error)

        errors = side_by_side(prepare, [subject.name for subject in self._subjects])
        for subject in self._subjects:
            answers[subject.name] |= {
                "error": errors[subject.name],
                **self._facts(subject),
                "disk_free_bytes": free,
                "disk_lasts_s": lasts_s,
                "room_level": room_level(free, speed).value,
            }

    def _mind_room(self, free: int, speed: float) -> None:
        """Warns of a disk that is full soon. UserError: it takes not one cube."""
        further = self._config.logging.next_directories
        largest = max(subject.facts.frame_bytes for subject in self._subjects)
        fault = room_fault([self._place.directory, *further], largest, self._frames)
        if fault:
            raise UserError(fault)
        level = room_level(free, speed)
        if level is not RoomLevel.OK:
            then = f", then to {', '.join(map(str, further))}" if further else ""
            self._questions.say(f"warning: {room_text(free, speed)}{then}")

    def _options(self) -> dict[str, loggers.LoggerOptions]:
        logging = self._config.logging
        starting = [s for s in self._subjects if s.present is None or not s.present.running]
        memory = memory_for_one_of(len(starting), logging.ring_memory_bytes)
        if memory < logging.ring_memory_bytes and starting:
            self._questions.say(
                f"ring memory: {bytes_text(memory)} for each logger, not "
                f"{logging.ring_memory} as configured: the machine has no more free"
            )
        options = loggers.LoggerOptions(
            directory=self._place.directory,
            next_directories=self._config.logging.next_directories,
            daily=self._place.daily,
            cube_size=self._frames,
            cubes=self._cubes,
            frames=0,
            timeout_s=logging.timeout_s,
            rt_priority=logging.rt_priority,
            writer_rt_priority=logging.writer_rt_priority,
            cpu_set=logging.cpu_set,
            cpus=logging.cpus,
        )
        at_start = replace(
            options, ring_memory_bytes=memory, new_cube_keywords=logging.new_cube_keywords
        )
        return {s.name: at_start if s in starting else options for s in self._subjects}

    def _place_shown(self, free: int, lasts_s: float | None) -> str:
        folders = "/YYYYMMDD/CAMERA" if self._place.daily else ""
        text = f"files go to {self._place.directory}{folders}; {bytes_text(free)} free"
        if lasts_s is None:
            return f"{text}; for how long is unknown: no frames come"
        together = " together" if len(self._subjects) > 1 else ""
        return f"{text}, enough for {duration(lasts_s)} at the present rates{together}"

    def _facts(self, subject: Subject) -> Answer:
        """For JSON."""
        facts = subject.facts
        return {
            "shape": list(facts.shape),
            "dtype": facts.dtype,
            "modes": subject.modes,
            "rate_hz": subject.rate_hz,
            "rate_source": subject.rate_source,
            "frames": self._frames,
            "cube_bytes": self._frames * facts.frame_bytes,
            "cube_s": self._frames / subject.rate_hz if subject.rate_hz else None,
            "cubes": self._cubes,
            "directory": str(self._place.directory),
            "daily": self._place.daily,
            "data_type": self._data_type or facts.data_type,
        }


def _common(values: Sequence[T | None]) -> T | None:
    """The value that all have; None where they differ, or one has none."""
    first = values[0]
    return first if all(value == first for value in values) else None


_frames_in_cube = partial(whole_number, least=1, most=MAX_CUBE_FRAMES)


def _answered(option: Callable[[str], int]) -> Callable[[str], int]:
    """The type= of an option, for a question."""

    def parse(text: str) -> int:
        try:
            return option(text)
        except ArgumentTypeError as error:
            raise ValueError(str(error)) from None

    return parse


# -- what is shown ----------------------------------------------------------------------------


def _shown(subject: Subject) -> str:
    ny, nx = subject.facts.shape
    mode = f" ({subject.modes[0]})" if subject.modes else ""
    rate = f"{subject.rate_hz:.2f} Hz ({subject.rate_source})"
    if not subject.rate_hz:
        rate = "no frames come, rate unknown"
    speed = f", {bytes_text(subject.bytes_per_s)}/s" if subject.rate_hz else ""
    return f"{subject.name}: {nx} x {ny} {subject.facts.dtype}{mode}, {rate}{speed}"


def _cube_shown(subject: Subject, frames: int) -> str:
    text = f"{subject.name}: a cube of {frames} frames has "
    text += bytes_text(frames * subject.facts.frame_bytes)
    return f"{text}, {frames / subject.rate_hz:.3g} s" if subject.rate_hz else text
