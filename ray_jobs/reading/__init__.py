"""Reads an X-ray with an exported detector (ONNX), and draws what was found.

In: a grayscale picture and ``best.onnx``. Out: findings (label, score, box in pixels of the picture).

This room needs numpy, OpenCV, onnxruntime and Pillow, ``ray_jobs.pixels`` and ``ray_jobs.errors``, nothing else: no
PyTorch, no Ultralytics, no Ray. So it can be packed into a model package and run where none of these is installed.
"""
