"""A few moments of the campaign (kill_campaign.py): the logger dies, the frames do not."""

from __future__ import annotations

import math

import pytest
from kill_campaign import Campaign, run


@pytest.mark.parametrize("cube_frames", [30, 1000])
def test_a_killed_logger_leaves_every_frame_that_was_on_disk(shm_dir, tmp_path, cube_frames):
    campaign = Campaign(shm_dir, tmp_path, 200, 1.0, cube_frames, "32MiB", most_lost_s=math.inf)
    moments = run(campaign, (120, 128), 4, seed=cube_frames)
    assert sum(moment.recovered for moment in moments) > 0
