"""What to try next, and when to stop: spaces, searchers, schedulers and scores. Knows neither Ray nor the detector.

In: a search's settings, and what trials reported. Out: the next parameters, and whether a trial goes on. Everything
here is a function of what it was told, in that order, so that a search that was killed goes on from its journal.
"""
