"""What can be wrong with an instance, and what mends it: `footfall doctor`.

`report` says what a check finds; `database`, `drift`, `tables`, `queue` and `work` look; `examination` lists
the checks and does them all; `mending` does what is safe to do.
"""
