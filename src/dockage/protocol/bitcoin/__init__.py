"""The channel on bitcoin: transactions, scripts, digests and the templates, all derived from the terms."""
