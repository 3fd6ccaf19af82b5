"""A server under load: what it answers, how fast and up to which rate. `run.load` is the stage."""
