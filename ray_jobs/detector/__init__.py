"""The detector: training, evaluation and export of YOLO12. The only room that imports Ultralytics.

It knows nothing of Ray: a trainer is told its rank, its world size, its device and whom to report to.
"""
