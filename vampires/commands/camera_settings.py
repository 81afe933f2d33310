"""set_crop, get_crop, set_tint, get_tint, set_fps, get_fps, set_readout_mode, get_readout_mode,
set_readout, get_readout (the same), set_trigger, get_trigger: what is set of the running
cameras, from any machine."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vampires.commands.cameras import (
    Answer,
    Job,
    chosen_cameras,
    exit_status,
    observer_command,
    observer_parser,
    run_on_machines,
    tell_error,
)
from vampires.commands.common import UserError

if TYPE_CHECKING:
    from vampires.config_models import CameraConfig

SWITCH_WORDS = {
    **dict.fromkeys(("enable", "on", "true", "external", "1"), True),
    **dict.fromkeys(("disable", "off", "false", "internal", "0"), False),
}

EXIT = """
exit status: 0 done; 1 a camera refused or does not run, with the reason; 2 wrong usage or
configuration."""


@dataclass(frozen=True)
class Setting:
    """What of a camera is set or shown. what: its name in requests to the camera. parse: from
    the words that were typed. show: of the settings, for people."""

    noun: str
    what: str
    words: str
    example: str
    parse: Callable[[Sequence[str]], Any]
    show: Callable[[dict[str, Any]], str]
    about: str


def _one_number(words: Sequence[str]) -> float:
    try:
        (word,) = words
        return float(word)
    except ValueError:
        raise UserError(f"found {' '.join(words)!r}, expected one number") from None


def _switch(words: Sequence[str]) -> bool:
    text = " ".join(words).lower()
    if text not in SWITCH_WORDS:
        raise UserError(
            f"found {text!r}, expected enable or disable (also on or off, true or false, "
            "external or internal)"
        )
    return SWITCH_WORDS[text]


def _readout(words: Sequence[str]) -> str:
    text = " ".join(words).upper()
    if text not in ("FAST", "SLOW"):
        raise UserError(f"found {' '.join(words)!r}, expected FAST or SLOW")
    return text


def _crop(words: Sequence[str]) -> str | list[int]:
    """A mode, or a window."""
    if len(words) == 1 and not words[0].isdigit():
        return words[0].upper()
    try:
        x0, x1, y0, y1 = (int(word) for word in words)
    except ValueError:
        raise UserError(
            f"found {' '.join(words)!r}, expected a camera mode such as MBI, or four whole "
            "numbers: x0 x1 y0 y1, first and last pixels"
        ) from None
    return [x0, x1, y0, y1]


def _shown_crop(now: dict[str, Any]) -> str:
    crop = now["crop"]
    rows, columns = crop["y1"] - crop["y0"] + 1, crop["x1"] - crop["x0"] + 1
    return (
        f"{now['mode'] or 'own window'}: x {crop['x0']} to {crop['x1']}, y {crop['y0']} to "
        f"{crop['y1']}, {rows} x {columns}, {now['fps']:.6g} Hz"
    )


SETTINGS = {
    "crop": Setting(
        "crop",
        "crop",
        "MODE or X0 X1 Y0 Y1",
        "MBI_REDUCED",
        _crop,
        _shown_crop,
        "The window of the sensor: a camera mode, with its usual rate, or first and last\n"
        "column and first and last row, counted from 0. Case does not matter. The stream is\n"
        "re-created; loggers and links follow.",
    ),
    "tint": Setting(
        "exposure time",
        "tint",
        "SECONDS",
        "0.005",
        _one_number,
        lambda now: f"{now['tint_s']:.6g} s, {now['fps']:.6g} Hz",
        "The exposure time of a frame in seconds; a rate that leaves no room for it falls.",
    ),
    "fps": Setting(
        "frame rate",
        "fps",
        "HZ",
        "57",
        _one_number,
        lambda now: f"{now['fps']:.6g} Hz, {now['tint_s']:.6g} s",
        "The frame rate in Hz; exposures that are too long for it are shortened.",
    ),
    "readout_mode": Setting(
        "readout mode",
        "readout",
        "FAST or SLOW",
        "SLOW",
        _readout,
        lambda now: f"{now['readout']}, {now['fps']:.6g} Hz",
        "The readout mode: FAST, or SLOW with less noise; a rate it cannot have is lowered.\n"
        "set_readout and set_readout_mode are the same command.",
    ),
    "trigger": Setting(
        "external trigger",
        "trigger",
        "enable or disable (also on or off, true or false, external or internal)",
        "enable",
        _switch,
        lambda now: "on" if now["external_trigger"] else "off",
        "The external trigger, which has both cameras take their frames together.",
    ),
}
SETTINGS["readout"] = SETTINGS["readout_mode"]


def _run(prog: str, setting: Setting, argv: Sequence[str] | None, *, setting_it: bool) -> int:
    verb = "Sets" if setting_it else "Shows"
    example = f"  {prog} {setting.example}" if setting_it else f"  {prog}"
    example += f"\n  {prog} -c 1" + (f" {setting.example}" if setting_it else " --json")
    parser = observer_parser(
        prog,
        f"{verb} the {setting.noun} of running cameras.\n\n{setting.about}\n{EXIT}",
        example,
    )
    if setting_it:
        parser.add_argument("value", metavar="VALUE", nargs="+", help=setting.words)
    args = parser.parse_args(argv)
    words: Sequence[str] = args.value if setting_it else ()
    value = setting.parse(words) if setting_it else None
    from vampires.config import load_config

    config = load_config()
    cameras = chosen_cameras(config, args.camera)
    job = Job(
        prog,
        list(words),
        act=lambda config, cameras: _act(setting, value, cameras, setting_it=setting_it),
        tell=lambda answers: _tell(prog, setting, answers),
        status=exit_status,
    )
    return run_on_machines(job, args, config, cameras)


def _act(
    setting: Setting, value: Any, cameras: Sequence[CameraConfig], *, setting_it: bool
) -> list[Answer]:
    """All of this machine's cameras at the same time."""
    from threading import Thread

    answers: list[Answer] = [
        {"camera": camera.name, "error": "interrupted"} for camera in cameras
    ]

    def act(k: int) -> None:
        answers[k] = _ask(setting, value, cameras[k].name, setting_it=setting_it)

    threads = [Thread(target=act, args=(k,), daemon=True) for k in range(len(cameras))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


def _ask(setting: Setting, value: Any, camera: str, *, setting_it: bool) -> Answer:
    from vampires.camera.control_socket import NoCameraProcess, RequestRefused, request
    from vampires.run_folder import RunFolder

    what = "mode" if setting.what == "crop" and isinstance(value, str) else setting.what
    try:
        if setting_it:
            answer = request(camera, RunFolder(), "set", what=what, value=value)
        else:
            answer = request(camera, RunFolder(), "status")
    except (NoCameraProcess, RequestRefused) as error:
        return {"camera": camera, "error": str(error)}
    return {"camera": camera, "error": "", "settings": answer["settings"]}


def _tell(prog: str, setting: Setting, answers: Sequence[Answer]) -> None:
    for answer in answers:
        if answer["error"]:
            tell_error(prog, answer)
        else:
            print(f"{answer['camera']}: {setting.show(answer['settings'])}", flush=True)


def _command(prog: str, key: str, *, setting_it: bool) -> Callable[..., int]:
    @observer_command(prog, "a camera that was told already has changed")
    def main(argv: Sequence[str] | None = None) -> int:
        """Runs the command; returns its exit status."""
        return _run(prog, SETTINGS[key], argv, setting_it=setting_it)

    return main


set_crop = _command("set_crop", "crop", setting_it=True)
get_crop = _command("get_crop", "crop", setting_it=False)
set_tint = _command("set_tint", "tint", setting_it=True)
get_tint = _command("get_tint", "tint", setting_it=False)
set_fps = _command("set_fps", "fps", setting_it=True)
get_fps = _command("get_fps", "fps", setting_it=False)
set_readout_mode = _command("set_readout_mode", "readout_mode", setting_it=True)
get_readout_mode = _command("get_readout_mode", "readout_mode", setting_it=False)
set_readout = _command("set_readout", "readout", setting_it=True)
get_readout = _command("get_readout", "readout", setting_it=False)
set_trigger = _command("set_trigger", "trigger", setting_it=True)
get_trigger = _command("get_trigger", "trigger", setting_it=False)

COMMANDS = {
    f"{verb}_{key}": globals()[f"{verb}_{key}"] for key in SETTINGS for verb in ("set", "get")
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command that the first word names, as `python -m` does."""
    given = sys.argv[1:] if argv is None else list(argv)
    command = COMMANDS.get(given[0] if given else "")
    if command is None:
        print(f"expected one of {', '.join(COMMANDS)}", file=sys.stderr)
        return 2
    return int(command(given[1:]))


if __name__ == "__main__":
    sys.exit(main())
