"""monoxkit: turns a classifier that works in English into a fast multilingual one."""

__version__ = "0.1.0"
