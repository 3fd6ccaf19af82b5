"""Predicting: files or a stream of texts in, labels with probabilities out."""

from monox_kit.prediction.config import PredictConfig, PredictSummary
from monox_kit.prediction.run import predict
from monox_kit.prediction.stream import predict_stream

__all__ = ["PredictConfig", "PredictSummary", "predict", "predict_stream"]
