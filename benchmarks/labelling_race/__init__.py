"""Labelling programs side by side: what `label_throughput.py` runs."""
