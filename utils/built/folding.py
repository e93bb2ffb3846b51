"""Batch norm folded into the convolution before it: one layer in place of two.

In evaluation a batch norm multiplies each channel by a constant and adds one, so the
convolution can do both (Jacob and others, 2018, section 3.2). Built for chapter 27.
"""

import copy

import torch
from torch import nn


def fold(conv, bn):
    """A new nn.Conv2d that equals bn(conv(x)) in evaluation; both stay as they are.

    It lies where conv lies, in conv's dtype. TypeError for other layers; ValueError where
    the channels differ, or the batch norm keeps no running statistics.
    """
    if not isinstance(conv, nn.Conv2d) or not isinstance(bn, nn.BatchNorm2d):
        kinds = f"{type(conv).__name__} and {type(bn).__name__}"
        raise TypeError(f"fold(conv, bn) takes a Conv2d and a BatchNorm2d, not {kinds}")
    if bn.running_var is None:
        raise ValueError("this batch norm keeps no running statistics: nothing to fold")
    if conv.out_channels != bn.num_features:
        raise ValueError(
            f"{conv.out_channels} channels leave the convolution, {bn.num_features} "
            "enter the batch norm"
        )
    folded = copy.deepcopy(conv)
    with torch.no_grad():
        device = conv.weight.device
        gain_C = 1 / torch.sqrt(bn.running_var.to(device) + bn.eps)
        shift_C = -bn.running_mean.to(device) * gain_C
        if bn.affine:
            gain_C = gain_C * bn.weight.to(device)
            shift_C = shift_C * bn.weight.to(device) + bn.bias.to(device)
        if conv.bias is not None:
            shift_C = shift_C + conv.bias * gain_C
        folded.weight.copy_(conv.weight * gain_C[:, None, None, None])
        folded.bias = nn.Parameter(shift_C.to(conv.weight, copy=True))
    return folded


def fold_all(net):
    "A copy of an nn.Sequential, every batch norm after a convolution folded into it."
    layers = []
    for layer in net:
        if (
            isinstance(layer, nn.BatchNorm2d)
            and layers
            and type(layers[-1]) is nn.Conv2d
        ):
            layers[-1] = fold(layers[-1], layer)
        else:
            layers.append(copy.deepcopy(layer))
    return nn.Sequential(*layers).train(net.training)
