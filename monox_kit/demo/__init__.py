"""The whole pipeline on real text: one command from an English classifier to a multilingual one."""

from monox_kit.demo.config import DemoConfig
from monox_kit.demo.recipe import run_demo
from monox_kit.demo.result import DemoReport

__all__ = ["DemoConfig", "DemoReport", "run_demo"]
