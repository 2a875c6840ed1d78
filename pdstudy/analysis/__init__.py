"""Tables of results to verdicts: statistics, evidence, contrasts, claims, the numbers of the paper."""
