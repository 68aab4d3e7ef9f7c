"""What happens in which order: a run from its checks to its summary, and how training is spread over a Ray cluster.

In: settings. Out: a finished run. The rooms below (detector, dataset, tracking, reading) do the work.
"""
