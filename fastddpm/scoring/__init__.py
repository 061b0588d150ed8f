"""Scores of images, whoever made them: `fastddpm evaluate` and `fastddpm classifier`."""

from fastddpm.scoring.classify import ClassifierRequest, make_classifier
from fastddpm.scoring.evaluate import EvaluationRequest, evaluate

__all__ = ["ClassifierRequest", "EvaluationRequest", "evaluate", "make_classifier"]
