"""How many images fit into a share of a GPU's memory, measured once before training."""

from ray_jobs.errors import BadInput
from ray_jobs.settings import Settings

_BESIDE_PIXELS = 0.4  # of the share; the rest is for the pixels of the split, and for a batch beside the recorded step


def largest_batch(settings: Settings, device: str, classes: int) -> int:
    """Images per GPU that fill ``settings.batch_size`` (a share between 0 and 1) of its memory, by trial steps.

    Uses Ultralytics' own probe. Raises ``BadInput`` on a CPU, whose memory it cannot tell.
    """
    if device == "cpu":
        raise BadInput(f"batch_size: {settings.batch_size} is a share of GPU memory; give a number of images for a CPU")
    import torch
    from ultralytics.nn.tasks import DetectionModel
    from ultralytics.utils.autobatch import check_train_batch_size

    from ray_jobs.detector.training import resolve_precision

    amp = resolve_precision(settings.precision, device)
    model = DetectionModel(f"{settings.model_name}.yaml", nc=classes, verbose=False).to(device).train()
    batch = check_train_batch_size(
        model,
        imgsz=settings.img_size,
        amp=torch.bfloat16 if amp == "bf16" else bool(amp),
        batch=float(settings.batch_size) * (_BESIDE_PIXELS if settings.speed.gpu_augmentation else 1.0),
    )
    del model
    torch.cuda.empty_cache()
    return max(int(batch), 1)
