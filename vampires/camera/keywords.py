"""The keywords of a camera's stream: pure functions from its settings to names and values.

Names and units are those of the instrument's dictionary; logicals travel as the strings
#TRUE# and #FALSE#. Keywords of the dictionary that a camera does not know are not here, so
that those of the auxiliary header, which the stream's would replace, stay: the filters
(FILTER01, FILTER02), where the telescope points (CRVAL), the focal ratio (F-RATIO).
DET-TMP is measured: the frame source gives it.
"""

from __future__ import annotations

from dataclasses import dataclass

from vampires import cameras
from vampires.camera.settings import CameraSettings
from vampires.camera.source import Keywords
from vampires.camera.wcs import wcs_keywords
from vampires.keywords import FALSE_STRING, STRING_CHARS, TRUE_STRING

COUNTS = "adu"
MAQTIME = "_MAQTIME"
MAQTIME_COMMENT = "[us] acquisition time of the frame, Unix time"


@dataclass(frozen=True)
class CameraIdentity:
    """What a camera is, and what it is used for.

    name: of its stream. number: 1 or 2 for the science cameras, None for any other.
    polarimetry: whether the frames are taken for polarimetry (OBS-MOD). data_type: DATA-TYP.
    object_name: OBJECT, cut to what a stream holds; "" leaves it to the auxiliary header.
    """

    name: str
    number: int | None
    polarimetry: bool = False
    data_type: str = "TEST"
    object_name: str = ""


def camera_keywords(
    settings: CameraSettings,
    identity: CameraIdentity,
    measured_hz: float = 0.0,
    *,
    coordinates: bool = True,
) -> Keywords:
    """The keywords that follow from the settings. measured_hz: frames/s, 0 before any were.
    coordinates: those of a science camera too; in a cube they are complete only with CRVAL."""
    found: Keywords = {
        "EXPTIME": (settings.tint_s, "[s] exposure time"),
        "FRATE": (settings.fps, "[Hz] frame rate, 0: as fast as possible"),
        "MFRATE": (measured_hz, "[Hz] measured frame rate, 0: not measured"),
        **_crop_keywords(settings, identity),
        "BIN-FCT1": (1, "[pixel] binning in x"),
        "BIN-FCT2": (1, "[pixel] binning in y"),
        "EXTTRIG": (logical(settings.external_trigger), "external trigger"),
        "DATA-TYP": (identity.data_type[:STRING_CHARS], "type of the data"),
        "BUNIT": (COUNTS, "unit of the pixel values"),
    }
    if identity.object_name:
        found["OBJECT"] = (identity.object_name[:STRING_CHARS], "name of the target")
    if identity.number is not None:
        found |= _science_keywords(settings, identity, identity.number)
        if coordinates:
            found |= wcs_keywords(settings.mode, settings.crop, identity.number)
    return found


def logical(value: bool) -> str:
    """A logical as a stream holds it."""
    return TRUE_STRING if value else FALSE_STRING


def _crop_keywords(settings: CameraSettings, identity: CameraIdentity) -> Keywords:
    ny, nx = settings.shape
    whole = settings.mode.upper() == "FULL"
    if identity.number is not None:
        whole = settings.crop.is_full
    return {
        "PRD-MIN1": (settings.crop.x0, "[pixel] first column of the crop"),
        "PRD-MIN2": (settings.crop.y0, "[pixel] first row of the crop"),
        "PRD-RNG1": (nx, "[pixel] columns of the crop"),
        "PRD-RNG2": (ny, "[pixel] rows of the crop"),
        "CROPPED": (logical(not whole), "the frame is less than the sensor"),
    }


def _science_keywords(
    settings: CameraSettings, identity: CameraIdentity, number: int
) -> Keywords:
    chip = cameras.detector(number, settings.readout)
    angle = cameras.INSTRUMENT_ANGLE_DEG[number]
    return {
        "DETECTOR": (cameras.detector_name(number), "name of the detector"),
        "U_CAMERA": (number, "VAMPIRES camera number"),
        "U_DETMOD": (settings.readout.upper(), "readout mode of the detector"),
        "GAIN": (chip.gain_e_per_adu, "[e/adu] gain of the detector"),
        "BIAS": (cameras.BIAS_ADU, "[adu] level without light, about"),
        "DETPXSZ1": (cameras.PIXEL_MM, "[mm] size of a pixel in x"),
        "DETPXSZ2": (cameras.PIXEL_MM, "[mm] size of a pixel in y"),
        "INST-PA": (angle, "[deg] offset angle of the instrument"),
        "OBS-MOD": (_observing_mode(settings.mode, identity), "observing mode"),
    }


def _observing_mode(mode: str, identity: CameraIdentity) -> str:
    ending = cameras.find_mode(mode).obs_mod_suffix if mode else ""
    return ("IPOL" if identity.polarimetry else "IMAG") + ending
