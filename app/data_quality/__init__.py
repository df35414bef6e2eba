"""Data quality reports. Hides how source health, volume anomalies and trait coverage are computed."""
