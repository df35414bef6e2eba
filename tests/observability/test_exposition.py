"""Metrics of two processes in one text, which Prometheus can read."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from app.observability.exposition import merge_processes
from app.observability.metrics import Metrics


def test_metrics_of_both_processes_are_readable() -> None:
    server, background = Metrics(), Metrics()
    server.count_request("GET", "/v1/customers/{customer}", 200, 0.01)
    background.count_request("GET", "/v1/customers/{customer}", 200, 0.02)
    background.count_filled(3, 9)
    text = merge_processes(server.render().decode(), background.render().decode(), "background")
    samples = {
        (sample.name, sample.labels.get("process")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if "le" not in sample.labels
    }
    assert samples["segue_requests_total", None] == samples["segue_requests_total", "background"] == 1
    assert samples["segue_fill_customers_total", None] == 0
    assert samples["segue_fill_customers_total", "background"] == 3
    headers = [line for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(headers) == len(set(headers)), "a metric has two headers"
