"""Identity resolution. Hides how identities link to customers, and how customers merge and split."""
