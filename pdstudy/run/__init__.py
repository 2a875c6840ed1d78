"""Steps computed: text steps and model steps, the worker, the scheduler, the engines, the tables of results."""
