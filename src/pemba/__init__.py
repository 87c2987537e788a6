"""Pemba: a Zanzibar-style authorization sidecar."""

__version__ = "0.1.0"
