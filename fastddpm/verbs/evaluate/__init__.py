"""`fastddpm evaluate` and `judge`: scores of images, and networks to score with."""
