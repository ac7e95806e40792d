"""Jobs on this machine, as a rehearsal that costs nothing: what SageMaker does, done by a process beside us."""
