"""Anomalies in images: each image's score, its map, and a threshold from normal ones."""

from fastddpm.detection.job import detect
from fastddpm.detection.request import DetectRequest

__all__ = ["DetectRequest", "detect"]
