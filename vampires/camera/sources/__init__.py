"""The frame sources: simulated, replayed, real."""
