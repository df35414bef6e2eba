"""The compiled nodes: each hides how one head decides whether it holds and when to check it again."""
