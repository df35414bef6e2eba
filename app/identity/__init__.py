"""Identity resolution: links identities to customers, and merges and splits customers."""
