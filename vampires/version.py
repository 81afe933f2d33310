"""The version of the installed package, for the header of every cube."""

from functools import cache
from importlib import metadata

DISTRIBUTION = "vampires-daq"
UNKNOWN = "0+unknown"


@cache
def package_version() -> str:
    """Version of the installed distribution, or ``0+unknown`` where it runs uninstalled."""
    try:
        return metadata.version(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        return UNKNOWN
