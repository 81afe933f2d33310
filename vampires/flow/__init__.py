"""The data flow: which processes a camera has on which machines, and what keeps them alive."""
