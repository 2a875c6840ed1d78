"""From result tables to verdicts: statistics, evidence, contrasts, claims, and the numbers of the paper."""
