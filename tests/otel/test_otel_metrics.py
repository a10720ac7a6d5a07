"""Metrics over OTLP: the same names, labels and values as `/metrics`."""

from __future__ import annotations

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from pipeline.http.families import FAMILIES, Kind
from tests.support.http.scrape import Scrape, Scraper
from tests.support.http.shop import LETTER, RETRIED, SKIPPED, Shop
from tests.support.otel.exporting import Exporting
from tests.support.otel.receiver import Receiver, Series, attributes_of, series_of
from tests.support.runtime.checkpointed import eager


def _scraped(found: Scrape) -> dict[Series, float]:
    """The series of the app. Those of the process change between two reads."""
    return {
        (name, frozenset(labels.items())): value
        for name, labels, value in found.samples
        if name.startswith("pipeline_")
    }


def test_names_labels_and_values_are_those_of_a_scrape(receiver: Receiver) -> None:
    """Dashboards and alerts must work on either way, so there is one source of the values."""
    sums = eager()
    exporting = Exporting(receiver.url, sums=sums)
    for number in range(4):
        sums.send(number)
        exporting.run()
    exporting.scrape()
    expected = _scraped(exporting.scrape())
    exporting.close()
    received = {
        series: value
        for series, value in series_of(receiver.metrics[-1]).items()
        if series[0].startswith("pipeline_")
    }
    assert received.keys() == expected.keys()
    assert received == pytest.approx(expected)
    assert expected["pipeline_commit_seconds_count", frozenset({("app", "sums"), ("group", "main")})] > 8


def test_every_outcome_of_records_is_exported(receiver: Receiver) -> None:
    """Errors are what an operator looks for first."""
    shop = Shop()
    exporting = Exporting(receiver.url)
    exporting.scrape.exporter = shop.scrape.exporter
    for value in (1, LETTER, RETRIED, SKIPPED):
        shop.order(value)
    shop.driver.run()
    expected = _scraped(shop.scrape())
    found = {}
    for family in shop.scrape.exporter.families():
        for point in family.points:
            if family.kind != "histogram" and family.name.startswith("pipeline_"):
                found[family.name, frozenset(point.labels.items())] = point.value
    exporting.close()
    assert found.items() <= expected.items()
    assert sum(value for (name, _), value in found.items() if name == "pipeline_records_total") == 4


def test_types_are_those_of_a_scrape(receiver: Receiver) -> None:
    """A counter that arrives as a gauge has no rate."""
    exporting = Exporting(receiver.url)
    exporting.send(1)
    exporting.run()
    exporting.close()
    [resource] = receiver.metrics[-1].resource_metrics
    kinds = {family.name: family.kind for family in FAMILIES}
    expected = {Kind.COUNTER: "sum", Kind.GAUGE: "gauge", Kind.HISTOGRAM: "histogram"}
    metrics = {metric.name: metric for metric in resource.scope_metrics[0].metrics}
    ours = {name: metric for name, metric in metrics.items() if name in kinds}
    assert {name: metric.WhichOneof("data") for name, metric in ours.items()} == {
        name: expected[kinds[name]] for name in ours
    }
    records = ours["pipeline_records_total"].sum
    assert records.is_monotonic
    assert records.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    assert all(metric.description and not metric.unit for metric in ours.values())
    assert metrics["process_cpu_seconds_total"].sum.data_points[0].as_double > 0


def test_the_resource_names_app_and_worker(receiver: Receiver) -> None:
    """Every backend groups by the service."""
    exporting = Exporting(receiver.url)
    exporting.close()
    resource = attributes_of(receiver.metrics[-1].resource_metrics[0].resource)
    assert (resource["service.name"], resource["service.instance.id"]) == ("sums", "w-1")


def test_standard_variables_change_resource_and_headers(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Operators set the same variables for all their programs."""
    monkeypatch.setenv("OTEL_SERVICE_NAME", "billing")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20secret")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    exporting = Exporting(receiver.url)
    receiver.await_metrics(2)
    exporting.close()
    resource = attributes_of(receiver.metrics[0].resource_metrics[0].resource)
    assert resource["service.name"] == "billing"
    assert resource["deployment.environment.name"] == "test"
    assert {headers["authorization"] for headers in receiver.headers} == {"Bearer secret"}


def test_a_scrape_and_an_export_may_use_one_exporter() -> None:
    """Both read the same registry, and neither changes what the other reads."""
    shop = Shop()
    shop.driver.run()
    scrape: Scraper = shop.scrape
    assert list(scrape.exporter.families())
    before = _scraped(scrape())
    list(scrape.exporter.families())
    assert _scraped(scrape()) == before
