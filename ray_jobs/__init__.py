"""Train and tune YOLO12 detectors on X-rays, on a Ray cluster, and lose nothing on the way."""

__version__ = "0.1.0"
