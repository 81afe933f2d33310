"""Facts of the instrument: cameras, modes, geometry, coordinates, observing modes.

The numbers are in data/instrument.toml and in the file of an instrument scientist; each holds
from its date on. ``facts`` has them as objects, ``file`` reads and checks them, ``coordinates``
and ``observing_mode`` are the rules that turn them into keywords. Imports nothing from the
shell above but the configuration's way of finding and faulting files.
"""
