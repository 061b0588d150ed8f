"""Verbs that make or judge images with a trained model, a folder each."""
