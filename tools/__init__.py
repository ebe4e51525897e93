"""What maintainers of the exporter run."""
