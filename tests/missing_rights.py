"""What a test does that needs more than this user may do on this machine.

Mounting a file system and making network namespaces need root, or a container that allows
it; an observer's desktop does neither. There the test is skipped and says what was refused.
Where $VAMPIRES_TESTS is ``all``, as in CI, nothing may be skipped, and the test fails instead.
"""

from __future__ import annotations

import os
from typing import NoReturn

import pytest


def must_run_all(refused: str) -> None:
    """Fails the test where all must run. refused: what cannot, and in whose words."""
    if os.environ.get("VAMPIRES_TESTS") == "all":
        pytest.fail(f"$VAMPIRES_TESTS is all, and this cannot run: {refused}", pytrace=False)


def cannot_run(refused: str) -> NoReturn:
    """Skips the test, or fails it where all must run. refused: what, and in whose words."""
    must_run_all(refused)
    # An observer without root cannot mount or make a namespace, and no code changes that:
    # the fault that is tested (a full disk, a cut cable) cannot be made there.
    pytest.skip(refused)
