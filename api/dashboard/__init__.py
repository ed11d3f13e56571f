"""The dashboard: the API's answers as pages, from `choice` (what is asked for) over `panels` to `charts`."""
