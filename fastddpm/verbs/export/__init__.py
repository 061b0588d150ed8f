"""`fastddpm export`: a model for a runtime without torch."""
