"""The programs that the labelling benchmark compares.

These modules run in the contender's own process and environment. At their top they import the
standard library and each other, nothing else: an environment has what its own rows need.
"""
