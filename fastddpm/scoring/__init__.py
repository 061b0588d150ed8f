"""Scores of images, whoever made them, and judges to score with: `fastddpm evaluate` and `fastddpm judge`."""

from fastddpm.scoring.evaluate import EvaluationRequest, evaluate
from fastddpm.scoring.judge import JudgeRequest, make_judge, save_judge, train_judge

__all__ = ["EvaluationRequest", "JudgeRequest", "evaluate", "make_judge", "save_judge", "train_judge"]
