"""`fastddpm sample`, `vary` and `cutmix`: many images from a model, over all processes, into files."""
