"""Runs of language models as a server: an engine, and an API that editors and programs know."""
