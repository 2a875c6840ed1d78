"""The reader's own task: a first params file, checks of the data, the time there is, candidates, a recommendation."""
