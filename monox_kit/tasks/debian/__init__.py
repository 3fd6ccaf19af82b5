"""Debian's package descriptions and their human translations; the task is to name a section."""
