"""Linear layers in int8: which are rounded, how, and that nothing else changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openvino import opset13 as ops

from ragcun_cache.encoder.graph import transformer_graph
from ragcun_cache.encoder.int8 import GROUP, round_linear_layers
from ragcun_cache.encoder.modules import Modules
from ragcun_cache.encoder.weights import Weights

WIDTH = 2 * GROUP


def graph_of(
    weights: dict[str, np.ndarray], norm: tuple[np.ndarray, np.ndarray] | None = None, *, width: int = WIDTH
) -> openvino.Model:
    """Return a graph of linear layers side by side, by name; behind a LayerNorm of weight and bias, if given."""
    entry = ops.parameter([-1, -1, width], openvino.Type.f32)
    source: Any = entry
    if norm is not None:
        normalised = ops.mvn(entry, ops.constant(np.array([2])), True, 1e-5, "inside_sqrt")
        source = ops.add(ops.multiply(normalised, ops.constant(norm[0])), ops.constant(norm[1]))
    outputs = []
    for name, weight in weights.items():
        product = ops.matmul(source, ops.constant(weight), False, True)
        product.set_friendly_name(f"layer.0.{name}/aten::linear/MatMul")
        outputs.append(product)
    return openvino.Model(outputs, [entry])


def run(graph: openvino.Model, inputs: np.ndarray, *, round_inputs: bool = False) -> list[np.ndarray]:
    hints = {
        "INFERENCE_PRECISION_HINT": "f32",
        "DYNAMIC_QUANTIZATION_GROUP_SIZE": GROUP if round_inputs else 0,
    }
    found = openvino.Core().compile_model(graph, "CPU", hints)({0: inputs.astype(np.float32)})
    return [found[number] for number in range(len(graph.outputs))]


def int8_shapes(graph: openvino.Model) -> list[tuple[int, ...]]:
    return [tuple(node.get_output_shape(0)) for node in int8_constants(graph)]


def int8_constants(graph: openvino.Model) -> Iterator[Any]:
    return (
        node
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "Constant" and node.get_output_element_type(0) == openvino.Type.i8
    )


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.sampled_from([GROUP, WIDTH, 24, 80]), st.booleans())
@settings(max_examples=25)
def test_a_rounded_weight_is_within_half_a_step_of_its_group(seed: int, rows: int, width: int, zero: bool) -> None:
    weight = np.random.default_rng(seed).standard_normal((rows, width)).astype(np.float32)
    weight[0] *= 0 if zero else 1000
    graph = round_linear_layers(graph_of({"dense": weight}, width=width))
    group = GROUP if width % GROUP == 0 else width
    assert int8_shapes(graph) == [(rows, width // group, group)]
    found = run(graph, np.eye(width)[None])[0][0].T
    step = np.abs(weight.reshape(rows, -1, group)).max(axis=2) / 127
    assert (np.abs(found - weight) <= step.repeat(group, axis=1) * 0.501 + 1e-6 * np.abs(weight)).all()


def test_values_and_what_is_no_linear_layer_stay_as_they_are() -> None:
    generator = np.random.default_rng(0)
    weights = {
        name: generator.standard_normal((8, WIDTH)).astype(np.float32)
        for name in ("attn.v", "attention.self.value", "v_proj", "attn.k", "values.dense")
    }
    inputs = generator.standard_normal((2, 3, WIDTH))
    expected = run(graph_of(weights), inputs)
    graph = round_linear_layers(graph_of(weights))
    assert int8_shapes(graph) == [(8, 2, GROUP)] * 2
    for name, before, after in zip(weights, expected, run(graph, inputs), strict=True):
        assert np.array_equal(before, after) == (name not in {"attn.k", "values.dense"}), name
        np.testing.assert_allclose(after, before, atol=0.5)
    entry = ops.parameter([-1, 4, 4], openvino.Type.f32)
    attention = openvino.Model([ops.matmul(entry, entry, False, True)], [entry])
    assert int8_shapes(round_linear_layers(attention)) == []


def test_outliers_of_a_layer_norm_are_made_smaller_once_for_all_that_read_it() -> None:
    generator = np.random.default_rng(1)
    weights = {f"dense{n}": generator.standard_normal((16, WIDTH)).astype(np.float32) for n in range(2)}
    norm_weight, norm_bias = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    norm_weight[5], norm_bias[70] = 60, -90
    inputs = generator.standard_normal((4, 16, WIDTH))
    exact = run(graph_of(weights, (norm_weight, norm_bias)), inputs)

    def error(found: list[np.ndarray]) -> float:
        return float(max(np.abs(one - other).mean() for one, other in zip(found, exact, strict=True)))

    graph = round_linear_layers(graph_of(weights, (norm_weight, norm_bias)))
    divisions = [
        node.input_value(1).get_node().data.reshape(-1)
        for node in graph.get_ordered_ops()
        if node.get_type_name() == "Multiply" and node.input_value(0).get_node().get_type_name() == "Add"
    ]
    assert len(divisions) == 1
    np.testing.assert_allclose(divisions[0][[5, 70]], [4 / 120, 4 / 92], rtol=1e-6)
    assert (np.delete(divisions[0], [5, 70]) == 1).all()
    plain = {f"v{name}": weight for name, weight in weights.items()}
    without = round_linear_layers(graph_of(plain))  # The same rounding of inputs that a LayerNorm is not seen behind.
    normed = run(graph_of({"v": np.eye(WIDTH, dtype=np.float32)}, (norm_weight, norm_bias)), inputs)[0]
    assert error(run(graph, inputs, round_inputs=True)) < 0.5 * error(run(without, normed, round_inputs=True))


def test_a_layer_norm_without_outliers_gets_no_more_to_do() -> None:
    weight = {"dense": np.ones((2, WIDTH), np.float32)}
    norm = np.ones(WIDTH, np.float32), np.zeros(WIDTH, np.float32)

    def added(norm: tuple[np.ndarray, np.ndarray] | None) -> int:
        before = len(graph_of(weight, norm).get_ordered_ops())
        return len(round_linear_layers(graph_of(weight, norm)).get_ordered_ops()) - before

    assert added(norm) == added(None)


@pytest.mark.parametrize("kind", ["bert", "distilbert", "mpnet", "roberta", "xlm-roberta"])
def test_the_values_of_every_kind_of_encoder_are_found(
    kind: str, tiny_encoder_of: Callable[..., Path], tmp_path: Path
) -> None:
    folder = tiny_encoder_of(kind, **({"hidden_dim": 64, "dim": 32} if kind == "distilbert" else {}))
    transformer = Modules(folder, device="cpu", max_seq_length=16).transformer
    path = transformer_graph(Weights.of(kind, folder, tmp_path / "graphs"), transformer, int8=True)
    assert len(int8_shapes(openvino.Core().read_model(path))) == 2 * 5, "two layers of q, k, o and two of the MLP"
