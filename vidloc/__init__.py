"""vidloc: finding human actions in video, in space and in time."""
