"""monoxkit: turns a classifier that works in English into a fast multilingual one."""

from monox_kit.runtime_environment import silence_dependencies

__version__ = "0.1.0"

silence_dependencies()
