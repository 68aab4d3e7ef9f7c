"""The averaged model as validation on a CPU reads with it: batch norms folded into the convolutions before them."""

from copy import deepcopy
from typing import Any

import torch
from torch.nn.utils.fusion import fuse_conv_bn_weights
from ultralytics.nn.modules.conv import Conv, DWConv


class ReadingModel:
    """A copy that is made once and takes over the model's weights before each validation."""

    def __init__(self) -> None:
        self._copy: Any = None
        self._follows = False

    def of(self, model: torch.nn.Module) -> torch.nn.Module:
        """The copy, which computes what the model does."""
        if self._copy is None or not self._follows:
            self._make(model)
        else:
            self._take_over(model)
        copy: torch.nn.Module = self._copy
        return copy

    def _make(self, model: torch.nn.Module) -> None:
        whole: Any = deepcopy(model)
        self._copy = whole.fuse(verbose=False).to(memory_format=torch.channels_last)
        # Other kinds of layers are folded in other ways: a model that has them is copied anew each time.
        biases = {f"{name}.conv.bias" for name in _folded(model)}
        self._follows = set(self._copy.state_dict()) - set(model.state_dict()) == biases

    def _take_over(self, model: torch.nn.Module) -> None:
        folded = _folded(model)
        with torch.no_grad():
            for name, layer in folded.items():
                conv, norm = layer.conv, layer.bn
                statistics = (norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias)
                weight, bias = fuse_conv_bn_weights(conv.weight, conv.bias, *statistics)
                target = self._copy.get_submodule(f"{name}.conv")
                target.weight.copy_(weight)
                target.bias.copy_(bias)
            values = model.state_dict()
            for name, value in self._copy.state_dict().items():
                if name.rpartition(".conv.")[0] not in folded:
                    value.copy_(values[name])


def _folded(model: torch.nn.Module) -> dict[str, Any]:
    """The layers whose batch norm goes into their convolution."""
    return {name: each for name, each in model.named_modules() if type(each) in (Conv, DWConv) and hasattr(each, "bn")}
