"""Meaning of a picture's numbers, where its file leaves that open or says it in a profile."""

from dataclasses import dataclass

from fastddpm.config import DataConfig

Range = tuple[float, float]


@dataclass(frozen=True)
class Meaning:
    """Settings of a run that say how pictures are decoded, whatever they are fitted to."""

    color_management: str = "srgb"
    """`srgb`, or `off`: embedded profiles are passed over"""
    draft: bool = True
    """a large JPEG is decoded at the reduced scale that is enough"""
    value_range: Range | None = None
    """values of black and white, of pictures of more than 8 bits"""
    window: Range | None = None
    """(middle, width) of a DICOM's window, in place of its own"""

    @classmethod
    def of(cls, config: DataConfig) -> "Meaning":
        """Meaning that the settings of a run give.

        Raises: ValueError: black and white are one.
        """
        if config.value_range and config.value_range[0] == config.value_range[1]:
            raise ValueError(
                f"data.value_range is {list(config.value_range)}; wanted two values, of black and of white"
            )
        if config.window and config.window[1] <= 1:
            raise ValueError(f"data.window is {list(config.window)}; wanted its middle and a width above 1")
        return cls(config.color_management, config.draft, config.value_range, config.window)

    @property
    def window_range(self) -> Range | None:
        """Values of black and white of the window.  (DICOM PS3.3, C.11.2.1.2)"""
        if self.window is None:
            return None
        middle, width = self.window
        return middle - 0.5 - (width - 1) / 2, middle - 0.5 + (width - 1) / 2
