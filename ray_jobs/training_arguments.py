"""The training arguments of Ultralytics that this platform accepts by their own names, and why it refuses the others.

Defaults are Ultralytics' own but for three choices: X-rays have a left and a right and no colour (no flips, no hue,
saturation or channel changes), and every batch is a step of the optimizer (``nbs``), see ``docs/performance.md``.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NonNegative = Annotated[float, Field(ge=0.0)]

REFUSED: dict[str, str] = {
    "batch": "call it batch_size",
    "imgsz": "call it img_size",
    "model": "call it model_name",
    "amp": "call it precision",
    "quantize": "call it precision; training int8-aware is not supported",
    "project": "runs are written to output_dir",
    "name": "call it run_name",
    "exist_ok": "nothing is ever overwritten",
    "resume": "use --resume RUN on the command line",
    "save": "every epoch is saved",
    "save_period": "every epoch is saved; keep says how many stay",
    "save_dir": "runs are written to output_dir",
    "time": "a time limit cannot be repeated; use epochs and patience",
    "rect": "rectangular batches cannot be shuffled over several workers",
    "cache": "images are read by this platform's own reader",
    "val": "every epoch is validated",
    "iou": "boxes are suppressed at 0.7 everywhere, from validation to the registered model",
    "max_det": "300 boxes per image are kept everywhere, from validation to the registered model",
    "split": "the best checkpoint is always tested on the test split",
    "plots": "plots are always made after training",
    "verbose": "has no meaning here",
    "profile": "exported models are not profiled while training",
    "compile": "not supported yet",
    "channels_last": "chosen by the platform",
    "fraction": "put fewer images into the data set, so that its fingerprint tells",
    "classes": "remove the classes from data.yaml, so that the model's names tell",
    "copy_paste": "needs segmentation masks; this platform trains boxes",
    "copy_paste_mode": "needs segmentation masks; this platform trains boxes",
    "overlap_mask": "is for segmentation",
    "mask_ratio": "is for segmentation",
    "dropout": "is for classification",
    "pose": "is for pose estimation",
    "kobj": "is for pose estimation",
    "rle": "is for pose estimation",
    "angle": "is for oriented boxes",
    "dlog": "is for depth",
    "dgrad": "is for depth",
    "dlam": "is for depth",
    "distill_model": "distillation is not supported",
    "dis": "distillation is not supported",
    "augmentations": "custom code cannot be repeated from settings.yaml",
    "task": "this platform trains detectors",
    "mode": "this platform trains detectors",
}


class TrainingArguments(BaseModel):
    """What Ultralytics' trainer is told, by Ultralytics' names; ranges are those of its documentation."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)

    optimizer: Literal["auto", "SGD", "MuSGD", "Adam", "Adamax", "AdamW", "NAdam", "RAdam", "RMSprop"] = "auto"
    lr0: Annotated[float, Field(gt=0.0, le=10.0)] = 0.01
    lrf: Share = 0.01
    cos_lr: bool = False
    momentum: Share = 0.937
    weight_decay: Share = 0.0005
    warmup_epochs: NonNegative = 3.0
    warmup_momentum: Share = 0.8
    warmup_bias_lr: Share = 0.1
    nbs: Annotated[int, Field(ge=1)] | None = None
    box: NonNegative = 7.5
    cls: NonNegative = 0.5
    cls_pw: Share = 0.0
    dfl: NonNegative = 1.5
    freeze: Annotated[int, Field(ge=0)] | list[int] | None = None
    single_cls: bool = False
    deterministic: bool = True
    cls_remap: bool = True

    hsv_h: Share = 0.0
    hsv_s: Share = 0.0
    hsv_v: Share = 0.4
    degrees: Annotated[float, Field(ge=-180.0, le=180.0)] = 0.0
    translate: Share = 0.1
    scale: Share = 0.5
    shear: Annotated[float, Field(ge=-180.0, le=180.0)] = 0.0
    perspective: Annotated[float, Field(ge=0.0, le=0.001)] = 0.0
    flipud: Share = 0.0
    fliplr: Share = 0.0
    bgr: Share = 0.0
    mosaic: Share = 1.0
    close_mosaic: Annotated[int, Field(ge=0)] = 10
    mixup: Share = 0.0
    cutmix: Share = 0.0
    multi_scale: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.0

    def for_ultralytics(self) -> dict[str, Any]:
        """These arguments, and no others, as Ultralytics takes them."""
        values = {name: getattr(self, name) for name in TrainingArguments.model_fields}
        return {name: value for name, value in values.items() if value is not None}
