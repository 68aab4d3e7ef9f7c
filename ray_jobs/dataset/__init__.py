"""The room of the X-rays: their description (data.yaml), the check, the index that all later steps read, pictures.

Comes in: a data.yaml in the Ultralytics format. Goes out: a ``DatasetIndex``, with which nobody scans labels again.
"""
