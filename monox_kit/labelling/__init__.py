"""The teacher's pass over a corpus: texts in, a logit store out."""

from monox_kit.labelling.config import LabelConfig, LabelSummary
from monox_kit.labelling.run import label_corpus

__all__ = ["LabelConfig", "LabelSummary", "label_corpus"]
