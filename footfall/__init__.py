"""What a view is and what becomes of it.

The files in the order in which a view meets them: `intake` makes it an event (`event`), `stream` queues it,
`writer` stores it, `rollup` counts it into its day, `stats` reads the counts, `retention` lets it go.
"""
