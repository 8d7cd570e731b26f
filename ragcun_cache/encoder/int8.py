"""A transformer's linear layers in int8, as OpenVINO's graph has them: rounded by groups, outliers made smaller."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Weights and inputs have one scale for so many neighbours each: an outlier spoils few, and no inputs are needed
# beforehand. Both need groups of the same size, else OpenVINO computes far slower.
GROUP = 64
# How the projections of values are called in the models that there are. Attention averages values over the tokens, but
# an error that tokens have in common stays as it is, and outlying channels cause just that.
_VALUES = re.compile(r"\.(v|value|value_proj|v_lin|v_proj)/")
# A channel is an outlier from so many medians on.
_OUTLIER = 2.0


def round_linear_layers(graph: Any) -> Any:
    """Round the linear layers of an ``openvino.Model`` to int8, symmetrically, in place, and return it.

    Weights have a scale for each output channel and :data:`GROUP` inputs. Where inputs come from a LayerNorm, channels
    that its own weights make outliers are divided by a factor, and the weights multiplied by it (SmoothQuant, Xiao et
    al. 2023, eq. 3, with factors from the LayerNorm in place of calibration). Projections of values stay as they are.
    The inputs are rounded while they are computed, by the option DYNAMIC_QUANTIZATION_GROUP_SIZE.
    """
    divided: dict[tuple[str, int], Any] = {}
    for node in graph.get_ordered_ops():
        weight_oi = _constant(node.input_value(1)) if node.get_type_name() == "MatMul" else None
        is_linear = weight_oi is not None and weight_oi.ndim == 2 and node.get_attributes()["transpose_b"]
        if weight_oi is None or not is_linear or _VALUES.search(node.get_friendly_name()):
            continue
        source = node.input_value(0)
        factor_i = _outlier_factors(source)
        if factor_i is not None:
            key = (source.get_node().get_friendly_name(), source.get_index())
            if key not in divided:
                divided[key] = _times(source, np.reciprocal(factor_i))
            node.input(0).replace_source_output(divided[key])
            weight_oi = weight_oi * factor_i
        node.input(1).replace_source_output(_rounded(weight_oi))
    graph.validate_nodes_and_infer_types()
    return graph


def _rounded(weight_oi: NDArray[np.float32]) -> Any:
    """Return (o, i) weights as int8 times their scales; a row of a width that groups do not fill has one scale."""
    from openvino import Type
    from openvino import opset13 as ops

    rows, width = weight_oi.shape
    group = GROUP if width % GROUP == 0 else width
    weight_ogi = weight_oi.reshape(rows, width // group, group)
    scale_og1 = np.abs(weight_ogi).max(axis=2, keepdims=True) / 127
    scale_og1[scale_og1 == 0] = 1
    rounded_ogi = np.rint(weight_ogi / scale_og1).astype(np.int8)
    scaled = ops.multiply(ops.convert(ops.constant(rounded_ogi), Type.f32), ops.constant(scale_og1))
    return ops.reshape(scaled, ops.constant(np.array([rows, width])), special_zero=False).output(0)


def _times(source: Any, factor_i: NDArray[np.float32]) -> Any:
    from openvino import opset13 as ops

    return ops.multiply(source, ops.constant(factor_i.reshape(1, 1, -1))).output(0)


def _outlier_factors(source: Any) -> NDArray[np.float32] | None:
    """Return how far above the limit each channel of a LayerNorm's output is, 1 for those below it; None: no outlier.

    A normalised value is mostly within two standard deviations, so a channel is within 2·|weight| + |bias|.
    """
    affine = _layer_norm(source)
    if affine is None:
        return None
    weight_i, bias_i = affine
    size_i = 2 * np.abs(weight_i) + np.abs(bias_i)
    factor_i = np.maximum(1, size_i / max(_OUTLIER * float(np.median(size_i)), float(np.finfo(np.float32).tiny)))
    return factor_i.astype(np.float32) if factor_i.max() > 1 else None


def _layer_norm(source: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
    """Return weight and bias of the LayerNorm that ``source`` is the output of; None if it is of something else."""
    node = source.get_node()
    found = []
    for kind in ("Add", "Multiply"):
        if node.get_type_name() != kind:
            return None
        inputs = [node.input_value(0), node.input_value(1)]
        constants = [_constant(value) for value in inputs]
        place = next((number for number, constant in enumerate(constants) if constant is not None), None)
        if place is None:
            return None
        found.append(constants[place])
        node = inputs[1 - place].get_node()
    bias, weight = found
    if node.get_type_name() != "MVN" or weight is None or bias is None:
        return None
    return weight.reshape(-1), bias.reshape(-1)


def _constant(source: Any) -> NDArray[np.float32] | None:
    node = source.get_node()
    if node.get_type_name() == "Convert":  # of weights that a model keeps in half precision
        node = node.input_value(0).get_node()
    return node.data.astype(np.float32) if node.get_type_name() == "Constant" else None
