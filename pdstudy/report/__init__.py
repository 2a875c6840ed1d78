"""Verdicts to figures, notebooks to pages, the explorer, the server on loopback."""
