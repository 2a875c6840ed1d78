"""A params file becomes a checked `Study`, and a `Study` becomes steps with digests."""
