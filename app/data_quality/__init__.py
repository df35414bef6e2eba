"""Data quality reports: source health, volume anomalies and trait coverage."""
