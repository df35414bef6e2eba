"""Identity resolution. Hides how identities link to customers, and which customer keeps its id in a merge."""
