"""Verbs that measure: each trains, draws and writes a report of its own."""
