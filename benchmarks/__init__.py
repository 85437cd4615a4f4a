"""Measurements of whole processes on a real Kafka: `make bench`, or `python -m benchmarks --help`."""
