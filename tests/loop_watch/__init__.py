"""What holds event loops up, and what they leave behind, as failures of tests."""

FINDINGS = "LOOP_WATCH_FINDINGS"
"""The environment variable that names the file for findings of other processes."""
