import pytest
import torch
from test_distiller import detector
from test_engine import facts
from tiny import ARCHITECTURES, Train, job
from torch import nn

from frs.distillation.teacher import fingerprint
from frs.preflight.complexity import complexity


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_cost_of_every_architecture_is_measured_and_its_state_preserved(architecture: str) -> None:
    model = detector(architecture).train()
    before, random_before = fingerprint(model), torch.get_rng_state()
    small, large = complexity(model, (96, 96)), complexity(model, (192, 192))
    assert small.parameters == large.parameters == sum(p.numel() for p in model.parameters())
    assert 0 < small.flops < large.flops
    assert small.latency_ms > 0
    assert fingerprint(model) == before and model.training
    assert torch.equal(torch.get_rng_state(), random_before)


def test_a_multiply_add_counts_as_one_flop() -> None:
    class Convolution(nn.Conv2d):
        def test_step(self, image: dict[str, list[torch.Tensor]]) -> torch.Tensor:
            return self(image["inputs"][0][None].float())

    # 8 x 6 outputs, each of 5 channels, each from 3 channels x 3 x 3
    assert complexity(Convolution(3, 5, 3, padding=1), (8, 6)).flops == 8 * 6 * 5 * 3 * 9


def test_a_job_emits_the_cost_of_both_detectors(train: Train) -> None:
    emitted = facts(train(job(schedule={"max_steps": 1})))
    assert emitted["teacher_parameters"] > emitted["student_parameters"] > 0
    assert emitted["teacher_flops"] > emitted["student_flops"] > 0
    assert emitted["teacher_latency_ms"] > 0 and emitted["student_latency_ms"] > 0
    assert "multiply-add" in emitted["flops_convention"] and emitted["latency_device"]
