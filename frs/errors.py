"""Expected failures: each has a stable code, a message and a hint that names the next step."""

from typing import ClassVar


class FrsError(Exception):
    """Base class of every expected failure.

    `code` is part of the API, `message` describes the failure, and `hint` names the next step.
    """

    code: ClassVar[str] = "internal_error"
    end_reason: ClassVar[str] = "internal_error"
    hint_by_default: ClassVar[str] = ""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.hint_by_default

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class InvalidSpec(FrsError):
    """The job spec is invalid."""

    code = "invalid_spec"
    end_reason = "invalid_spec"
    hint_by_default = "The recipes (`frs recipes`) are valid specs."


class BadDataset(FrsError):
    """The data set has errors."""

    code = "bad_dataset"
    end_reason = "bad_dataset"
    hint_by_default = "Correct the data set, then run `python -m frs check` on it."


class DatasetNotFound(BadDataset):
    """The data set does not exist."""

    code = "dataset_not_found"


class ArchiveRefused(BadDataset):
    """The archive contains entries that are unsafe to unpack."""

    code = "archive_refused"
    hint_by_default = (
        "Create the archive again from plain files and folders: no links, no `..`, no names that differ only in case."
    )


class ArchiveTooLarge(ArchiveRefused):
    """The archive exceeds a size limit."""

    code = "archive_too_large"
    hint_by_default = (
        "Remove files that are not needed, or copy the data set to the service's data set folder and register it there."
    )


class ArchiveUnreadable(BadDataset):
    """The archive is incomplete, damaged or of an unsupported format."""

    code = "archive_unreadable"
    hint_by_default = "Send a complete .zip (stored or deflated, no password), .tar or .tar.gz file."


class LayoutUnknown(BadDataset):
    """The archive's folder layout is none of the supported ones."""

    code = "layout_unknown"
    hint_by_default = "Use one of the layouts that docs/datasets.md shows, and upload again."


class NoValidationSplit(BadDataset):
    """The data set has no validation split."""

    code = "no_validation_split"
    hint_by_default = (
        "Add a validation split, or send `val_fraction=0.2` (`--val-fraction 0.2`) to use 20 % of the images for it."
    )


class BadTeacher(FrsError):
    """The teacher cannot be used."""

    code = "bad_teacher"
    end_reason = "bad_teacher"
    hint_by_default = "Choose another teacher, or export this one again."


class BadWeights(FrsError):
    """The weights of a detector cannot be used, be it the teacher or the student."""

    code = "bad_weights"
    end_reason = "bad_weights"
    hint_by_default = "Choose another weights file, or export the detector again."


class WeightsNotFound(BadWeights):
    """The weights file does not exist."""

    code = "weights_not_found"
    hint_by_default = "Put the file into the models folder, or set `init: random` to start from random weights."


class WeightsUnreadable(BadWeights):
    """The weights file is damaged or of an unsupported format."""

    code = "weights_unreadable"
    hint_by_default = "Provide a torch file that holds a `state_dict` of tensors, or a .safetensors file."


class WeightsRefused(BadWeights):
    """The weights file holds more than dense tensors of finite numbers."""

    code = "weights_refused"
    hint_by_default = "Export the detector again: a weights file may only hold dense tensors of finite numbers."


class TeacherWeightsMismatch(BadWeights):
    """The weights do not fit the detector's description."""

    code = "teacher_weights_mismatch"
    hint_by_default = "Describe the detector that these weights were trained with: same config, same classes."


class ClassMismatch(FrsError):
    """A detector, the training split or the validation split has other classes than the others."""

    code = "class_mismatch"
    end_reason = "class_mismatch"
    hint_by_default = (
        "Use the same classes in detector, training file and validation file; their order is by ascending category id."
    )


class TeacherNotCompetent(FrsError):
    """The teacher's mAP on the validation split is no better than chance."""

    code = "teacher_not_competent"
    end_reason = "teacher_refused"
    hint_by_default = "Train the teacher longer, or set `distillation.accept_weak_teacher: true` to continue anyway."


class StrideMismatch(FrsError):
    """The pyramids of teacher and student have no stride in common."""

    code = "stride_mismatch"
    end_reason = "teacher_refused"
    hint_by_default = "Choose a teacher whose pyramid shares strides with the student's."


class HeadMismatch(FrsError):
    """The class logits of teacher and student cannot be compared."""

    code = "head_mismatch"
    end_reason = "teacher_refused"
    hint_by_default = (
        "Compare features alone (`method: feature` or `distillation.logit_weight: 0`), or choose a teacher whose head "
        "has the student's anchors."
    )


class InitMismatch(FrsError):
    """No layer of the student's neck and head can start from the teacher's weights."""

    code = "init_mismatch"
    end_reason = "teacher_refused"
    hint_by_default = (
        "Give the student the teacher's `neck_channels`, and its `architecture` or `config`, or remove "
        "`distillation.init_from_teacher`."
    )


class NoGradient(FrsError):
    """A term has no gradient with respect to the student."""

    code = "no_gradient"
    end_reason = "teacher_refused"
    hint_by_default = "Set that term's weight to 0, or choose another teacher."


class UnsupportedDetector(FrsError):
    """The detector cannot be built, trained or distilled."""

    code = "unsupported_detector"
    end_reason = "unsupported_detector"
    hint_by_default = (
        "Use one of the values of `architecture`, or the base config of another detector. Distillation "
        "needs a neck and a dense head with sigmoid classification."
    )


class ExportUnsupported(FrsError):
    """The detector cannot be exported to the requested format."""

    code = "export_unsupported"
    end_reason = "export_unsupported"
    hint_by_default = "Use a student with another `architecture`; docs/export.md lists those that can be exported."


class ExportFailed(FrsError):
    """An exported file does not run."""

    code = "export_failed"
    end_reason = "export_failed"
    hint_by_default = "This is a bug in FRS or in the runtime: please report it with the log of the job."


class PrecisionUnsupported(FrsError):
    """The device does not support the requested precision."""

    code = "precision_unsupported"
    end_reason = "device_unavailable"
    hint_by_default = "Use `precision: auto`, `fp32` or `bf16`."


class DeviceUnavailable(FrsError):
    """The requested devices are not available."""

    code = "device_unavailable"
    end_reason = "device_unavailable"
    hint_by_default = "Request fewer `resources.devices`, or omit the field."


class NodesUnavailable(FrsError):
    """The hosts of a job cannot meet, or one of them was lost."""

    code = "nodes_unavailable"
    hint_by_default = (
        "Set MASTER_ADDR and MASTER_PORT on all hosts to the address and a free port of the first one, and see the "
        "output of `python -m frs join` on the others."
    )


class FileNotOnNode(FrsError):
    """A host of a job does not have a file of it."""

    code = "file_not_on_node"
    hint_by_default = "Mount the same file systems on all hosts of the job, under the same paths."


class Diverged(FrsError):
    """A loss is no longer finite."""

    code = "diverged"
    end_reason = "diverged"
    hint_by_default = (
        "Lower `schedule.optimizer.learning_rate`, keep `schedule.max_grad_norm`, or use `precision: fp32`."
    )


class OutOfMemory(FrsError):
    """The GPU or the host has run out of memory."""

    code = "out_of_memory"
    end_reason = "out_of_memory"
    hint_by_default = "Lower `schedule.batch_size` or `schedule.image_size`."


class BatchTooLarge(OutOfMemory):
    """A batch does not fit into memory."""

    code = "batch_too_large"
    hint_by_default = (
        "Set `schedule.batch_size` to the size that fits and raise `schedule.accumulate` by as much, or lower "
        "`schedule.image_size`."
    )


class StorageFull(FrsError):
    """The disk is full."""

    code = "storage_full"
    hint_by_default = "Free disk space; the job then resumes from its last checkpoint."


class CheckpointUnusable(FrsError):
    """The work folder holds a checkpoint of another spec or format."""

    code = "checkpoint_unusable"
    hint_by_default = "Start again in an empty work folder."


class DetectionsUnusable(FrsError):
    """A run's detections are missing, damaged or of another version."""

    code = "detections_unusable"
    end_reason = "runs_not_comparable"
    hint_by_default = "Train again in an empty work folder: detections must come from a run of this version."


class RunsDiffer(FrsError):
    """The runs cannot be compared with each other."""

    code = "runs_differ"
    end_reason = "runs_not_comparable"
    hint_by_default = "Compare runs on one data set: as many students as baselines, with the same seeds."
