"""Run stages as jobs, on a backend: a job has the files of one commit and the DVC remote, and no Git.

    snapshot -> push the deps -> job: pull, run, push -> take over the results

What comes back equals a local run's, to the byte of `dvc.lock`. The rest of `mlops` calls `submit.run`: without the
folder, stages run on this machine; without one of its sub-folders, on the other backends.
"""
