"""Runtimes that are not torch."""
