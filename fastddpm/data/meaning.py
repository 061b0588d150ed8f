"""Meaning of a picture's numbers, where its file leaves that open or says it in a profile."""

from dataclasses import dataclass

from fastddpm.config import DataConfig


@dataclass(frozen=True)
class Meaning:
    """Settings of a run that say how pictures are decoded, whatever they are fitted to."""

    color_management: str = "srgb"
    """`srgb`, or `off`: embedded profiles are passed over"""
    draft: bool = True
    """a large JPEG is decoded at the reduced scale that is enough"""

    @classmethod
    def of(cls, config: DataConfig) -> "Meaning":
        """Meaning that the settings of a run give."""
        return cls(config.color_management, config.draft)
