"""Grad-CAM and HiResCAM at any named layer, through autograd; for research, beside the closed form."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import Tensor, nn

    from osteoscope.network.classifier import TumourNetwork

_PLANES_AT_ONCE = 16


def grad_cam(
    network: TumourNetwork, planes: Tensor, *, layer: str, target: int, covariates: Tensor | None = None
) -> Tensor:
    """Grad-CAM before its ReLU: activations weighted by the mean gradient of their channel.

    Parameters
    ----------
    network
        The network; left as it was found, in mode, gradients and hooks, whatever happens.
    planes
        (planes, channels, rows, columns) of one patient.
    layer
        Name of a module as in ``network.named_modules()``, with (planes, K, h, w) as output; ``encoder.map`` is map A.
    target
        Index of the class whose centred logit is explained.
    covariates
        (1, covariates) where the network takes them.

    Returns
    -------
    Tensor
        (planes, h, w), signed.

    Raises
    ------
    ValueError
        If there is no such layer, or its output is not a map.

    References
    ----------
    Selvaraju et al., ICCV 2017, equations 1 and 2 (the ReLU of equation 2 is left to the caller).
    """
    activation, gradient = _activation_and_gradient(network, planes, layer, target, covariates)
    return (gradient.mean(dim=(-2, -1), keepdim=True) * activation).sum(dim=1)


def hires_cam(
    network: TumourNetwork, planes: Tensor, *, layer: str, target: int, covariates: Tensor | None = None
) -> Tensor:
    """HiResCAM: activations weighted by their own gradient, position by position.

    Parameters and errors are those of `grad_cam`.

    Returns
    -------
    Tensor
        (planes, h, w), signed.

    References
    ----------
    Draelos and Carin, arXiv:2011.08891, equation 3.
    """
    activation, gradient = _activation_and_gradient(network, planes, layer, target, covariates)
    return (gradient * activation).sum(dim=1)


def difference_through_weights(
    network: TumourNetwork, planes: Tensor, *, scores: Tensor, target: int, covariates: Tensor | None = None
) -> float:
    """Measure what the closed form leaves out: the way of map A through the planes' weights.

    Parameters are those of `grad_cam`; `planes` holds two or more, since the weight of one plane alone is always 1, and
    `scores`, (planes,), is added to their gate scores.

    Returns
    -------
    float
        Sum of absolute differences between HiResCAM at map A, whose gradient also flows through the weights, and the
        closed form, as a share of the closed form's sum of absolute values; 0 where the closed form is 0 throughout.
    """
    membership = torch.ones(1, len(planes), dtype=torch.bool, device=planes.device)
    with _as_in_prediction(network):
        with torch.no_grad():
            maps = torch.cat([network.encoder(some).maps for some in torch.split(planes, _PLANES_AT_ONCE)])
        # What lies before map A has no part in it: from there on the network is small, however many planes there are.
        with torch.enable_grad():
            vectors = maps.requires_grad_().mean(dim=(-2, -1))
            judged = network.head(network.encoder.gate(vectors) + scores, vectors, membership, covariates)
            (gradient,) = torch.autograd.grad(judged.logits[0, target] - judged.logits[0].mean(), maps)
        maps = maps.detach()
        closed = network.class_maps(maps)[:, target] * judged.weights[0, :, None, None]
    full, closed = (gradient * maps).sum(dim=1), closed.detach() / (closed.shape[-1] * closed.shape[-2])
    size = closed.abs().sum()
    return float((full - closed).abs().sum() / size) if size > 0 else 0.0


def _activation_and_gradient(
    network: TumourNetwork, planes: Tensor, layer: str, target: int, covariates: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Activations of the layer and the gradient of the centred logit there: (planes, K, h, w) each."""
    membership = torch.ones(1, len(planes), dtype=torch.bool, device=planes.device)
    with _as_in_prediction(network), _recorded(network, layer) as outputs, torch.enable_grad():
        # Asking for the gradient of the input makes the graph reach every layer, frozen or not.
        logits = network(planes.detach().requires_grad_(), membership, covariates).logits[0]
        if not outputs or not isinstance(outputs[-1], torch.Tensor) or outputs[-1].ndim != 4:
            msg = f"layer {layer!r} gives no map of (planes, channels, rows, columns)"
            raise ValueError(msg)
        activation = outputs[-1]
        (gradient,) = torch.autograd.grad(logits[target] - logits.mean(), activation, allow_unused=True)
    if gradient is None:
        msg = f"layer {layer!r} has no part in the logits"
        raise ValueError(msg)
    return activation.detach(), gradient


@contextlib.contextmanager
def _as_in_prediction(network: nn.Module) -> Iterator[None]:
    """Switch dropout and batch statistics off; give every module its own mode back."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def _recorded(network: nn.Module, layer: str) -> Iterator[list[Tensor]]:
    """Record the outputs of a layer; the hook comes off however the block ends."""
    modules = dict(network.named_modules())
    if layer not in modules:
        msg = f"no layer is called {layer!r}; there are, among others, {', '.join(list(modules)[1:8])}"
        raise ValueError(msg)
    outputs: list[Tensor] = []
    # An in-place operation further on would overwrite what was recorded, so the following layers get a copy.
    handle = modules[layer].register_forward_hook(lambda _module, _inputs, output: _keep(outputs, output))
    try:
        yield outputs
    finally:
        handle.remove()


def _keep(outputs: list[Tensor], output: Tensor) -> Tensor:
    outputs.append(output)
    return output.clone() if isinstance(output, torch.Tensor) else output
