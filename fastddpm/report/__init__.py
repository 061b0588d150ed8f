"""Pictures and the page of a run, made from arrays and records; knows no model."""

from fastddpm.report.charts import save_charts, save_loss_plot
from fastddpm.report.figures import save_grid, save_labelled_rows, save_pairs, tile_scale
from fastddpm.report.progress import MAX_FRAMES, evenly, save_progress_gif, save_progress_sheet
