"""File imports. Hides how rows of CSV and JSON files become messages, and how an interrupted import resumes."""
