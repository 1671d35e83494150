"""The stages of a run in one process: load inputs, build models, preflight, train, deliver."""

from pathlib import Path

from torch import nn

from frs import events
from frs.comparison import compare
from frs.comparison.run_folder import CHECKPOINTS
from frs.dataset.splits import LoadedSplits
from frs.engine.checkpoints import Checkpoints
from frs.engine.delivery import deliver, report_complexity
from frs.engine.identity import checkpoint_identity
from frs.engine.training_stage import train
from frs.errors import ExportUnsupported
from frs.export.network import check_exportable
from frs.preflight.context import RunContext, open_context
from frs.preflight.setup import Models, build_models, build_student, load_inputs, preflight
from frs.preflight.step_runner import StepResult, StepRunner
from frs.resolved import ResolvedSpec
from frs.training import process_group
from frs.training.stop_request import StopRequest


def run(spec: ResolvedSpec, workdir: Path, emit: events.Emit, stop: StopRequest) -> str:
    """Train, evaluate or compare, and return the end reason. Training resumes from the newest checkpoint in `workdir`.

    Raises FrsError after an expected failure, and Interrupted if `stop` was requested.
    """
    if spec.comparison_inputs is not None:
        return compare.run(spec, spec.comparison_inputs, workdir, emit, stop)
    context, steps = open_context(spec, workdir, emit), StepRunner(stop_at_first_error=True)
    data = load_inputs(context, steps)
    student = build_student(context, data, steps)
    if context.job.kind == "evaluate":
        return evaluate(context, data, student)
    if context.job.kind == "export":
        return export(context, data, student, stop)
    models = prepare(context, data, student, steps)
    checkpoints = Checkpoints(workdir / CHECKPOINTS, checkpoint_identity(context, data))
    if checkpoints.newest() is None:  # the first attempt
        preflight(context, data, models, steps)
    result = train(context, data, models, checkpoints, stop)
    if process_group.rank() == 0:
        deliver(context, data, models, result.student, result.detections)
    return result.end_reason


def prepare(context: RunContext, data: LoadedSplits, student: nn.Module, steps: StepRunner) -> Models:
    """Build what `student` is trained with. A student to quantize must be one that an export can write."""
    if context.job.kind == "quantize":
        student = steps.run("export", _check_export, student)
    return build_models(context, data, student, steps)


def _check_export(student: nn.Module) -> StepResult[nn.Module]:
    """Raise ExportUnsupported if the student cannot be exported."""
    check_exportable(student)
    return StepResult(student, "The trained student can be exported.")


def evaluate(context: RunContext, data: LoadedSplits, student: nn.Module) -> str:
    """Evaluate the student and return the end reason."""
    context.reporter.phase("evaluating")
    width, height = context.test_size
    context.reporter.log(f"Images are scaled into {width} x {height} pixels.")
    scores, detections = context.evaluate(student, data.val)
    context.reporter.evaluation("student", scores, last=True)
    context.save_detections("student", detections, data.val)
    report_complexity(context, student, None)
    return "completed"


def export(context: RunContext, data: LoadedSplits, student: nn.Module, stop: StopRequest) -> str:
    """Write the student as files for a device, and return the end reason. Raise ExportUnsupported."""
    try:
        from frs.export import stage
    except ModuleNotFoundError as error:
        raise ExportUnsupported(
            f"The package {error.name} is not installed.", "Install the extra: pip install 'frs-distill[export]'."
        ) from error
    return stage.run(context, data, student, stop)
