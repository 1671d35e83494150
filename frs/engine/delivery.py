"""What a run delivers besides its metrics and checkpoints: files of the student, richness picture, costs."""

from torch import nn

from frs.comparison.pictures import richness
from frs.cpu_load import mean_load
from frs.dataset.splits import LoadedSplits
from frs.dataset.trainable import labelled_images
from frs.detectors import builder, weights
from frs.distillation.teacher import Teacher
from frs.engine.student_files import StudentWriter
from frs.evaluation.detections import Rows
from frs.facts import RunFacts
from frs.preflight.complexity import complexity
from frs.preflight.context import RunContext
from frs.preflight.estimate import FLOPS_CONVENTION
from frs.preflight.setup import Models
from frs.training import versions

RICHNESS_IMAGES = 4


def deliver(context: RunContext, data: LoadedSplits, models: Models, student: nn.Module, detections: Rows) -> None:
    """Write the results besides the checkpoints.

    They are the final student's detections, weights, safetensors copy and config, the richness picture and the facts.
    """
    context.reporter.phase("exporting")
    context.save_detections("student", detections, data.val)
    writer = build_writer(context, data, models.student)
    file = writer.weights(student)
    for name, saved in [
        ("student.safetensors", writer.safetensors_copy(student, file)),
        ("student-config.py", writer.config(file, data.val.files)),
    ]:
        context.reporter.artifact(name, saved)
    context.reporter.facts(RunFacts(student_sha256=file.sha256))
    if models.teacher:
        emit_richness(context, data, models.teacher)
    report_complexity(context, student, models.teacher)


def emit_richness(context: RunContext, data: LoadedSplits, teacher: Teacher) -> None:
    """Emit the teacher's richness on a few validation images. A failure is logged and does not fail the run."""
    indices = labelled_images(data.val.coco, data.val.excluded)[:RICHNESS_IMAGES]
    loader = context.test_loader(data.val, indices)
    try:
        maps = richness.compute(teacher, loader)
        files = {"richness.png": richness.draw(maps), "richness.json": richness.to_json(maps)}
    except Exception as error:
        context.reporter.log(f"The richness could not be drawn: {type(error).__name__}: {error}.", "warning")
        return
    for name, content in files.items():
        context.reporter.artifact(name, weights.write_bytes(content, context.workdir / name))


def report_complexity(context: RunContext, student: nn.Module, teacher: Teacher | None) -> None:
    """Emit parameters, FLOPs and latency of student and teacher as facts."""
    cost = complexity(student, context.test_size)
    loads = [cost.load]
    facts = RunFacts(student_parameters=cost.parameters, student_flops=cost.flops, student_latency_ms=cost.latency_ms)
    context.reporter.facts(facts)
    if teacher is not None:
        cost = complexity(teacher.detector, context.test_size)
        loads.append(cost.load)
        facts = RunFacts(
            teacher_parameters=cost.parameters, teacher_flops=cost.flops, teacher_latency_ms=cost.latency_ms
        )
        context.reporter.facts(facts)
    device = versions.device_name(context.device)
    context.reporter.facts(
        RunFacts(latency_device=device, latency_load=mean_load(loads), flops_convention=FLOPS_CONVENTION)
    )


def build_writer(context: RunContext, data: LoadedSplits, student: nn.Module) -> StudentWriter:
    """Return the writer of the student's result files."""
    max_detections = context.job.evaluation.max_detections
    frozen_stages = context.job.schedule.frozen_stages
    model = builder.model_config(context.spec.student.description, len(data.classes), max_detections, frozen_stages)
    name = context.job.name or type(student).__name__.lower()
    folder, pipeline = context.workdir / "student", context.test_pipeline
    return StudentWriter(folder, name, model, data.classes, pipeline, max_detections)
