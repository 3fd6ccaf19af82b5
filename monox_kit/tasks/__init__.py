"""Labelled corpora that monoxkit prepares itself, all in the form that the demo reads."""
