"""Golden tests: every mask, distance and term against NumPy, on the shapes of each head's logits."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from frs.distillation.batch import TeacherLevel
from frs.distillation.losses import divergence, inside_boxes, richness, squared_error, standardised_error, weighted_mean
from frs.distillation.methods import METHODS, Distance
from frs.spec import TERMS, Method

Array = NDArray[np.float64]
CHANNELS = {"gfl": 3, "fcos": 3, "retinanet": 9 * 3, "faster_rcnn": 3 * 1}
HEADS = list(CHANNELS)
BOXES = [[[9.0, 0.0, 30.0, 17.0], [33.0, 25.0, 60.0, 39.0]], []]
"""Of two images of 56 x 40 pixels; the second box reaches beyond the image, the second image has none."""


def sigmoid(x: Array) -> Array:
    return 1 / (1 + np.exp(-x))


def entropy(belief: Array, guess: Array) -> Array:
    return -(belief * np.log(guess) + (1 - belief) * np.log(1 - guess))


def oracle_rich(z: Array) -> Array:
    return sigmoid(z).max(axis=1, keepdims=True)


def oracle_everywhere(z: Array) -> Array:
    return np.ones_like(z[:, :1])


def oracle_boxed(z: Array) -> Array:
    """A cell of 8 x 8 pixels counts when its open area meets a box's."""
    mask = np.zeros_like(z[:, :1])
    for image, boxes in enumerate(BOXES):
        for left, top, right, bottom in boxes:
            for row, column in np.ndindex(z.shape[2:]):
                across = min(right, 8 * column + 8) > max(left, 8 * column)
                down = min(bottom, 8 * row + 8) > max(top, 8 * row)
                mask[image, 0, row, column] = max(mask[image, 0, row, column], across and down)
    return mask


def oracle_squared(student: Array, teacher: Array) -> Array:
    return (teacher - student) ** 2


def oracle_standardised(student: Array, teacher: Array) -> Array:
    def standard(x: Array) -> Array:
        return (x - x.mean(axis=(0, 2, 3), keepdims=True)) / (x.std(axis=(0, 2, 3), keepdims=True) + 1e-6)

    return oracle_squared(standard(student), standard(teacher))


def oracle_divergence(student: Array, teacher: Array) -> Array:
    """The paper's binary cross-entropy, less its floor."""
    belief = sigmoid(teacher)
    return entropy(belief, sigmoid(student)) - entropy(belief, belief)


def oracle_mean(distance: Array, mask: Array) -> float:
    return float((mask * distance).sum() / mask.sum())


ORACLES = {
    "frs": {"feature": (oracle_rich, oracle_squared), "logit": (oracle_rich, oracle_divergence)},
    "feature": {"feature": (oracle_rich, oracle_squared)},
    "logit": {"logit": (oracle_rich, oracle_divergence)},
    "uniform": {"feature": (oracle_everywhere, oracle_squared), "logit": (oracle_everywhere, oracle_divergence)},
    "boxes": {"feature": (oracle_boxed, oracle_squared), "logit": (oracle_boxed, oracle_divergence)},
    "pkd": {"feature": (oracle_everywhere, oracle_standardised)},
    "none": {},
}


def arrays(head: str) -> tuple[Array, Array, Array, Array]:
    """Student and teacher logits, student and teacher features of one level."""
    random = np.random.default_rng(len(head))
    logits = random.normal(-2, 3, (2, 2, CHANNELS[head], 5, 7))
    features = random.normal(0, 2, (2, 2, 8, 5, 7))
    return logits[0], logits[1], features[0], features[1]


def seen(features: Array, logits: Array, dtype: torch.dtype = torch.float64) -> TeacherLevel:
    boxes = [torch.tensor(corners).reshape(-1, 4) for corners in BOXES]
    return TeacherLevel(torch.tensor(features, dtype=dtype), torch.tensor(logits, dtype=dtype), boxes, stride=8)


@pytest.mark.parametrize("head", HEADS)
def test_richness_is_the_highest_score_of_any_channel(head: str) -> None:
    _, teacher, _, _ = arrays(head)
    rich = richness(torch.tensor(teacher, requires_grad=True))
    assert rich.shape == (2, 1, 5, 7)
    assert not rich.requires_grad
    np.testing.assert_allclose(rich.numpy(), oracle_rich(teacher), rtol=1e-5)


def test_a_cell_is_inside_boxes_where_it_touches_one() -> None:
    logits = np.zeros((2, 3, 5, 7))
    mask = inside_boxes(torch.tensor(logits), seen(logits, logits).boxes, 8)
    np.testing.assert_array_equal(mask.numpy(), oracle_boxed(logits))
    assert mask[1].sum() == 0 < mask[0].sum() < 35


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("method", METHODS)
def test_every_term_of_every_method_equals_its_formula(method: Method, head: str, dtype: torch.dtype) -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array, dtype=dtype).double().numpy() for array in arrays(head))
    for name, term in METHODS[method].items():
        mask, distance = ORACLES[method][name]
        own, theirs = (f_s, f_t) if name == "feature" else (z_s, z_t)
        ours = term.distance(torch.tensor(own, dtype=dtype), torch.tensor(theirs, dtype=dtype))
        value = weighted_mean(ours, term.mask(seen(f_t, z_t, dtype)))
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(oracle_mean(distance(own, theirs), mask(z_t)), rel=1e-5)


def test_the_spec_names_the_terms_every_method_has() -> None:
    assert {method: set(terms) for method, terms in METHODS.items()} == {m: set(t) for m, t in TERMS.items()}
    assert ORACLES.keys() == METHODS.keys()


@pytest.mark.parametrize("distance", [squared_error, divergence, standardised_error])
def test_gradients_equal_finite_differences(distance: Distance) -> None:
    random = np.random.default_rng(5)
    own, theirs = random.normal(0, 2, (2, 2, 3, 4, 3))
    mask = torch.tensor(random.random((2, 1, 4, 3)))
    student = torch.tensor(own, requires_grad=True)
    weighted_mean(distance(student, torch.tensor(theirs)).double(), mask).backward()
    oracle = {
        squared_error: oracle_squared,
        divergence: oracle_divergence,
        standardised_error: oracle_standardised,
    }[distance]
    expected = np.zeros_like(own)
    for place in np.ndindex(own.shape):
        values = []
        for step in (1e-5, -1e-5):
            moved = own.copy()
            moved[place] += step
            values.append(oracle_mean(oracle(moved, theirs), mask.numpy()))
        expected[place] = (values[0] - values[1]) / 2e-5
    np.testing.assert_allclose(student.grad, expected, rtol=2e-4, atol=1e-6)


@pytest.mark.parametrize("head", HEADS)
def test_gradients_of_both_frs_terms_equal_the_formulas_derivatives(head: str) -> None:
    z_s, z_t, f_s, f_t = (torch.tensor(array) for array in arrays(head))
    rich = richness(z_t)
    features, logits = f_s.clone().requires_grad_(), z_s.clone().requires_grad_()
    (weighted_mean(squared_error(features, f_t), rich) + weighted_mean(divergence(logits, z_t), rich)).backward()
    near = {"rtol": 1e-5, "atol": 1e-7, "check_dtype": False}
    torch.testing.assert_close(features.grad, 2 * rich * (f_s - f_t) / rich.sum(), **near)
    torch.testing.assert_close(logits.grad, rich * (z_s.sigmoid() - z_t.sigmoid()) / rich.sum(), **near)


@pytest.mark.parametrize("distance", [squared_error, divergence])
def test_the_teacher_receives_no_gradient(distance: Distance) -> None:
    student, teacher = (torch.randn(1, 3, 2, 2, requires_grad=True) for _ in range(2))
    distance(student, teacher).sum().backward()
    assert teacher.grad is None and student.grad is not None


@pytest.mark.parametrize("distance", [squared_error, divergence, standardised_error])
def test_equals_cost_nothing(distance: Distance) -> None:
    same = torch.tensor(arrays("gfl")[0])
    assert distance(same, same).abs().max() == 0


def test_a_mask_of_zeros_costs_nothing_and_pulls_nowhere() -> None:
    student = torch.randn(1, 3, 2, 2, requires_grad=True)
    weighted_mean(squared_error(student, torch.randn(1, 3, 2, 2)), torch.zeros(1, 1, 2, 2)).backward()
    assert student.grad is not None and student.grad.abs().max() == 0


def test_logits_far_out_stay_finite() -> None:
    far = torch.tensor([-1e4, 1e4]).reshape(1, 2, 1, 1)
    assert torch.isfinite(divergence(-far, far)).all()
