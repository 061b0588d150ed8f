"""Pictures and the page of a run, made from arrays and records; knows no model."""

from fastddpm.report.charts import save_charts, save_loss_plot
from fastddpm.report.figures import save_grid, save_labelled_rows, save_pairs
from fastddpm.report.gained import Gained, GainTable, save_gain
from fastddpm.report.page import About, save_page
from fastddpm.report.progress import MAX_FRAMES, evenly, save_progress_gif, save_progress_sheet
from fastddpm.report.reproduced import Reproduced, save_reproduction

__all__ = [
    "MAX_FRAMES",
    "About",
    "GainTable",
    "Gained",
    "Reproduced",
    "evenly",
    "save_charts",
    "save_gain",
    "save_grid",
    "save_labelled_rows",
    "save_loss_plot",
    "save_page",
    "save_pairs",
    "save_progress_gif",
    "save_progress_sheet",
    "save_reproduction",
]
