"""The keywords of a camera's stream: pure functions from its settings to names and values.

Names and units are those of the instrument's dictionary; logicals travel as the strings
#TRUE# and #FALSE#. What the instrument's database says (filters, polarisers, the image
rotator) is among them, as far as the readers of a raw cube need it; where the telescope points
(CRVAL, RA, DEC) is not: it comes with the auxiliary header. DET-TMP is measured: the frame
source gives it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vampires.camera.settings import CameraSettings
from vampires.camera.source import Keywords, KeywordValue
from vampires.instrument.cameras import detector_name
from vampires.instrument.coordinates import coordinate_keywords
from vampires.instrument.facts import FULL, Instrument
from vampires.instrument.file import instrument_on
from vampires.instrument.observing_mode import (
    NOT_SORTED,
    database_keywords,
    image_rotation_deg,
)
from vampires.keywords import FALSE_STRING, STRING_CHARS, TRUE_STRING

COUNTS = "adu"
MAQTIME = "_MAQTIME"
MAQTIME_COMMENT = "[us] acquisition time of the frame, Unix time"


@dataclass(frozen=True)
class CameraIdentity:
    """What a camera is, and what it is used for.

    name: of its stream. number: 1 or 2 for the science cameras, None for any other.
    data_type: DATA-TYP. object_name: OBJECT, cut to what a stream holds; "" leaves it to the
    auxiliary header.
    """

    name: str
    number: int | None
    data_type: str = "TEST"
    object_name: str = ""


def camera_keywords(
    settings: CameraSettings,
    identity: CameraIdentity,
    measured_hz: float = 0.0,
    *,
    instrument: Instrument | None = None,
    database: Mapping[str, KeywordValue] | None = None,
    coordinates: bool = True,
) -> Keywords:
    """The keywords that follow from the settings.

    Parameters
    ----------
    measured_hz : frames/s, 0 before any were measured.
    instrument : the facts that hold; by default those of today.
    database : what the instrument's database says, as far as it does.
    coordinates : those of a science camera too; in a cube they are complete only with CRVAL.
    """
    found: Keywords = {
        "EXPTIME": (settings.tint_s, "[s] exposure time"),
        "FRATE": (settings.fps, "[Hz] frame rate, 0: as fast as possible"),
        "MFRATE": (measured_hz, "[Hz] measured frame rate, 0: not measured"),
        **_crop_keywords(settings, whole=settings.mode.upper() == FULL),
        "BIN-FCT1": (1, "[pixel] binning in x"),
        "BIN-FCT2": (1, "[pixel] binning in y"),
        "EXTTRIG": (logical(settings.external_trigger), "external trigger"),
        "DATA-TYP": (identity.data_type[:STRING_CHARS], "type of the data"),
        "BUNIT": (COUNTS, "unit of the pixel values"),
    }
    if identity.object_name:
        found["OBJECT"] = (identity.object_name[:STRING_CHARS], "name of the target")
    if identity.number is not None:
        instrument = instrument or instrument_on()
        found |= _science_keywords(settings, identity.number, instrument)
        found |= following_keywords(
            settings, identity.number, instrument, database or {}, coordinates=coordinates
        )
    return found


def following_keywords(
    settings: CameraSettings,
    number: int,
    instrument: Instrument,
    database: Mapping[str, KeywordValue],
    *,
    coordinates: bool = True,
) -> Keywords:
    """Those of a science camera that change when the instrument's database does."""
    found: Keywords = {**database_keywords(instrument, settings.mode, number, database)}
    if coordinates:
        rotation_deg = image_rotation_deg(database)
        found |= coordinate_keywords(
            instrument, settings.mode, settings.crop, number, rotation_deg
        )
    return found


def logical(value: bool) -> str:
    """A logical as a stream holds it."""
    return TRUE_STRING if value else FALSE_STRING


def _crop_keywords(settings: CameraSettings, *, whole: bool) -> Keywords:
    ny, nx = settings.shape
    return {
        "PRD-MIN1": (settings.crop.x0, "[pixel] first column of the crop"),
        "PRD-MIN2": (settings.crop.y0, "[pixel] first row of the crop"),
        "PRD-RNG1": (nx, "[pixel] columns of the crop"),
        "PRD-RNG2": (ny, "[pixel] rows of the crop"),
        "CROPPED": (logical(not whole), "the frame is less than the sensor"),
    }


def _science_keywords(
    settings: CameraSettings, number: int, instrument: Instrument
) -> Keywords:
    detector = instrument.detector(number, settings.readout)
    bias = instrument.bias_adu
    whole = settings.shape == instrument.sensor_shape
    return {
        **_crop_keywords(settings, whole=whole),
        "DETECTOR": (detector_name(number), "name of the detector"),
        "U_CAMERA": (number, "VAMPIRES camera number"),
        "U_DETMOD": (settings.readout.upper(), "readout mode of the detector"),
        "GAIN": (detector.gain_e_per_adu, "[e/adu] gain of the detector"),
        "BIAS": (bias, "[adu] level without light, about"),
        "DETBIAS": (bias, "[adu] level without light, about"),
        "DETPXSZ1": (instrument.pixel_mm, "[mm] size of a pixel in x"),
        "DETPXSZ2": (instrument.pixel_mm, "[mm] size of a pixel in y"),
        "F-RATIO": (instrument.focal_ratio, "focal ratio of the camera"),
        "INST-PA": (instrument.geometry[number].pa_deg, "[deg] offset angle of the instrument"),
        "U_FLC": (NOT_SORTED, "state of the liquid crystal: not sorted yet"),
    }
