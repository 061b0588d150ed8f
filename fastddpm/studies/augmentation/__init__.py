"""`fastddpm evaluate augmentation`: what augmentation gains a classifier."""
