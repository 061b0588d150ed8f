"""Judges of images: they eat uint8 arrays, and know neither models nor where the images come from."""
