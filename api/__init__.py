"""HTTP: turns requests into calls on `footfall` and results into responses."""
