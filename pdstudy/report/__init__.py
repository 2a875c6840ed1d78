"""From verdicts to figures, from notebooks to pages, the explorer, and the local server."""
