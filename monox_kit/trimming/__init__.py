"""Trimming: a model without the tokens that some languages never use, otherwise what it was."""

from monox_kit.trimming.config import LanguageTrim, TrimConfig, TrimSummary

__all__ = ["LanguageTrim", "TrimConfig", "TrimSummary"]
