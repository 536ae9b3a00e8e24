"""Builds and serves on the hosts of a Ray cluster. Nothing outside this package imports Ray."""
