"""The commands, one module each, with main(argv) returning the exit code."""
