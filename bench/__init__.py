"""Benchmarks of the released server and browser snippet."""
