"""Models that write one token after another."""
