"""Models side by side: what they cost and how far they agree. `run.benchmark` is the stage.

Nothing is imported here: `worker`, whose start is timed, is imported through this package.
"""
