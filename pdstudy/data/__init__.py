"""From files to batches: tasks, formats, the hub and its mirror, cleaning, the tokenizer, masking, batches."""
