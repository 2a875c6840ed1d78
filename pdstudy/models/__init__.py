"""BERT, its losses and the training loop, weights on disk, and how models answer and are measured."""
