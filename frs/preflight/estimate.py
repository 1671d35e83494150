"""What is known of a job before it runs. Importable without torch."""

from pydantic import BaseModel, ConfigDict

from frs.errors import InvalidSpec
from frs.preflight.checks import Check

FLOPS_CONVENTION = "one multiply-add is one FLOP; convolutions and matrix products; one image"


class DetectorCost(BaseModel):
    model_config = ConfigDict(frozen=True)

    parameters: int
    flops: int
    """As `flops_convention` of the plan says."""
    latency_ms: float


class Estimate(BaseModel):
    """Null: it could not be found out, and a check says why."""

    model_config = ConfigDict(frozen=True)

    ok: bool
    checks: list[Check]
    device: str | None = None
    precision: str | None = None
    classes: list[str] | None = None
    training_images: int | None = None
    validation_images: int | None = None
    epochs: int | None = None
    steps: int | None = None
    teacher: DetectorCost | None = None
    student: DetectorCost | None = None
    flops_convention: str = FLOPS_CONVENTION
    seconds_per_step: float | None = None
    """With the reading of images, as far as the processes that read them do not keep up. Of a job on several processes, one's
    share, without what they tell each other."""
    estimated_seconds: float | None = None
    """Training and every evaluation, these at the teacher's rate where there is one, which the student beats."""
    peak_memory_mb: float | None = None

    @property
    def exit_code(self) -> int:
        """0 all well, 1 a check failed, 2 the spec itself is at fault."""
        codes = [check.code for check in self.checks if check.level == "error"]
        return 0 if not codes else 2 if InvalidSpec.code in codes else 1
