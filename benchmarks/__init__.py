"""Benchmarks: `make bench` runs them. Every claim is a ratio of two sides measured in one run."""
