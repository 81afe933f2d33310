"""The aux header service: what the observatory knows, kept beside the streams for the cubes.

``options`` and ``constants`` are what it is told, ``redis_client`` and ``redis_watch`` what it
hears, ``keyword_values`` says what of it may stand in a header, ``aux_file`` makes the file,
``logging_state`` is what is told back, and ``service`` holds them together. docs/header.md is
the manual.
"""
