"""The base of the tables of TOML files: strict types, no unknown keys, never changed.

The description of a field says what is allowed in it; messages quote it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Table(BaseModel):
    """A table of a file: its keys, and no others, with values of just these types."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, validate_default=True)


def as_tuple(value: object) -> object:
    """A list of TOML as the tuple that a frozen table holds; for BeforeValidator."""
    return tuple(value) if isinstance(value, list) else value
