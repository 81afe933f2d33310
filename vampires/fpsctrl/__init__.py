"""The screen milk-fpsCTRL, and its command lines. Textual is imported by `screen` alone."""
