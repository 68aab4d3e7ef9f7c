"""What starts training by itself or on request: a small service in front of a Ray cluster.

In: ``config/trigger.yaml``, requests with a token, and X-rays that appear in a folder. Out: jobs on the cluster,
through Ray's own job submission. ``options`` (the settings), ``messages`` (what requests and answers look like),
``orders`` (from a request to a command), ``ray_jobs_api`` (the cluster's jobs), ``queue`` (what waits for its turn),
``incoming`` (where new images appear), ``cycles`` (which image was used when), ``watcher`` (what starts by itself),
``progress``, ``health``, ``documentation``, ``service`` (the HTTP side).

The service keeps nothing in memory that a restart would lose: jobs are Ray's, results are in the runs' folders, and
what waits is a file.
"""
