"""Fuzzing of every decoder: `python -m tests.fuzz --help` (or `make fuzz`) tells how.

targets.py lists the decoders, each with what must hold for any bytes at all. atheris finds the
bytes; what it found is kept in corpus/, one line of base64 per input, and every run of the tests
goes through it.
"""
