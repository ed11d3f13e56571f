"""Celery: tasks wire a clock and connections to plain functions of `footfall`."""
