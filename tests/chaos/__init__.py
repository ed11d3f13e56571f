"""Parts and stores fail at random while views come in; none may be lost or doubled.

`python -m tests.chaos --seed 7 --minutes 5`, or `make chaos`.

Real: `footfall up` (API, two workers, beat) with its supervisor, PostgreSQL and Redis as it would start them,
each on a disk of its own; SIGKILL, SIGSTOP and restarts of each; full disks; connections between the parts
and the stores that are cut in the middle of a reply, slowed, or swallow everything; midnight in the site's
time zone in the middle of the run, with views from both sides of it, and rollups of the day that has just
ended. Views of pages, books, stories and resources, and batches, with ids given by the client, which sends
each again until it is answered; some are given up, as by a closed browser, and nobody knows of those.

Not covered: power that fails (a SIGKILL leaves what the kernel holds, and the disks are in memory: nothing
here says that fsync is honest), disks that are lost or corrupted, clocks that jump (midnight comes from a
time zone made for the run), several hosts (tests/functional/test_hosts.py), weeks.

The seed decides views and faults and their order; when each of them meets the other, no seed decides.
"""
