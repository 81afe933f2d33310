"""The tables of instrument.toml, and what is allowed in them. Imports pydantic."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import BeforeValidator, Field, StringConstraints

from vampires.table_model import Table, as_tuple

NO_FIELD = "NA"
"""In the fields of a mode: one that its crop leaves out."""

_MAX_PIXELS = 65536
_FINITE = {"allow_inf_nan": False}

FieldName = Annotated[str, StringConstraints(pattern="^[A-Z][A-Z0-9]{0,14}$")]
ModeName = Annotated[str, StringConstraints(pattern="^[A-Z][A-Z0-9_]{0,30}$")]
Pixel = Annotated[int, Field(ge=0, lt=_MAX_PIXELS)]
Position = Annotated[float, Field(ge=-0.5, lt=_MAX_PIXELS, **_FINITE)]
Finite = Annotated[float, Field(**_FINITE)]
Positive = Annotated[float, Field(gt=0, **_FINITE)]
NotNegative = Annotated[float, Field(ge=0, **_FINITE)]
Window = Annotated[tuple[Pixel, Pixel, Pixel, Pixel], BeforeValidator(as_tuple)]
Point = Annotated[tuple[Position, Position], BeforeValidator(as_tuple)]
Scale = Annotated[tuple[Finite, Finite], BeforeValidator(as_tuple)]
Places = Annotated[tuple[Finite, ...], BeforeValidator(as_tuple)]
Keyword = Annotated[str, StringConstraints(pattern="^[A-Z][A-Z0-9_-]{0,7}$")]
FieldNames = Annotated[
    tuple[FieldName, ...], BeforeValidator(as_tuple), Field(min_length=4, max_length=4)
]


class SensorTable(Table):
    """The sensor of both cameras."""

    columns: Pixel = Field(description="a whole number of pixels")
    rows: Pixel = Field(description="a whole number of pixels")
    pixel_mm: Positive = Field(description="millimetres, above 0")
    bias_adu: NotNegative = Field(description="adu, 0 or more")


class OpticsTable(Table):
    """What both cameras have in common."""

    focal_ratio: Positive = Field(description="a number above 0")
    field_arcsec: Positive = Field(description="arcseconds, above 0")


class NoiseTable(Table):
    """A camera in one readout mode."""

    gain_e_per_adu: Positive = Field(description="electrons an adu, above 0")
    read_noise_e: NotNegative = Field(description="electrons, 0 or more")
    dark_e_per_s: NotNegative = Field(description="electrons a pixel and second, 0 or more")


class ReadoutTable(Table):
    """A readout mode."""

    frame_jitter_us: NotNegative = Field(description="microseconds, 0 or more")
    min_exposure_us: Positive = Field(description="microseconds, above 0")
    max_rate_hz: Positive = Field(description="frames/s, above 0")
    max_rate_rows: Annotated[int, Field(ge=1, lt=_MAX_PIXELS)] = Field(
        description="a whole number of rows, 1 or more"
    )
    line_time_us: Positive | None = Field(None, description="microseconds, above 0")
    vcam1: NoiseTable = Field(description="a table { gain_e_per_adu = ..., ... }")
    vcam2: NoiseTable = Field(description="a table { gain_e_per_adu = ..., ... }")


class ReadoutsTable(Table):
    """The readout modes."""

    FAST: ReadoutTable = Field(description="a table [state.readout.FAST]")
    SLOW: ReadoutTable = Field(description="a table [state.readout.SLOW]")


class CameraTable(Table):
    """Where a camera looks."""

    scale_mas: Scale = Field(
        description="two numbers other than 0: mas a pixel in x and y, signed as CDELT1, CDELT2"
    )
    pa_deg: Finite = Field(description="degrees, INST-PA")
    hotspots: Mapping[FieldName, Point] = Field(
        description="a table of fields, such as F610 = [1188.9, 867.8]: pixels of the sensor"
    )


class CamerasTable(Table):
    """Both cameras."""

    vcam1: CameraTable = Field(description="a table [state.cameras.vcam1]")
    vcam2: CameraTable = Field(description="a table [state.cameras.vcam2]")


class ModeTable(Table):
    """A camera mode."""

    vcam1: Window = Field(description="[x0, x1, y0, y1]: first and last pixels on the sensor")
    vcam2: Window = Field(description="[x0, x1, y0, y1]: first and last pixels on the sensor")
    rate_hz: Positive | None = Field(None, description="frames/s, above 0")
    fields: FieldNames | None = Field(
        None,
        description='four names of fields that have hotspots, or "NA", in the order of the '
        "sets of coordinates",
    )
    obs_mod: Annotated[str, StringConstraints(pattern="^(_MBIR?)?$")] = Field(
        "", description='"_MBI", "_MBIR" or ""'
    )


class PolarimetryTable(Table):
    """What makes an observation polarimetry."""

    beamsplitter: Annotated[str, StringConstraints(min_length=1, max_length=20)] = Field(
        description="the value of U_BS, a text"
    )
    tolerance_mm: Positive = Field(description="millimetres, above 0")
    stages_mm: Mapping[Keyword, Places] = Field(
        description="a table of keywords and positions, such as { P_STGPS2 = [56.0] }"
    )


class TriggerTable(Table):
    """The trigger controller."""

    half_width_us: NotNegative = Field(description="microseconds, 0 or more")


class StateTable(Table):
    """All facts of one state of the instrument."""

    name: str = Field("", description="a text")
    sensor: SensorTable = Field(description="a table [state.sensor]")
    optics: OpticsTable = Field(description="a table [state.optics]")
    bands_nm: Mapping[FieldName, Positive] = Field(
        description="a table of wavelengths in nm, such as F610 = 610.0"
    )
    readout: ReadoutsTable = Field(description="a table [state.readout]")
    cameras: CamerasTable = Field(description="a table [state.cameras]")
    modes: Mapping[ModeName, ModeTable] = Field(
        description="tables [state.modes.NAME]; NAME is capital letters, digits and '_'"
    )
    polarimetry: PolarimetryTable = Field(description="a table [state.polarimetry]")
    trigger: TriggerTable = Field(description="a table [state.trigger]")
