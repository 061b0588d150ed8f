"""`fastddpm augment`: new labelled images from labelled images."""
