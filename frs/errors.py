"""Everything that can go wrong in words a user can act on: a stable code, what happened, what to do next."""

from typing import ClassVar


class FrsError(Exception):
    """Base of every expected failure. `code` is part of the API; `message` says what, `hint` the next step."""

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
    code = "invalid_spec"
    hint_by_default = "See GET /recipes or `frs recipes` for specs that work."


class BadDataset(FrsError):
    code = "bad_dataset"
    end_reason = "bad_dataset"
    hint_by_default = "Correct the data set, then run `python -m frs check` on it."


class DatasetNotFound(BadDataset):
    code = "dataset_not_found"


class ArchiveRefused(BadDataset):
    """It was made to do harm, or could have been."""

    code = "archive_refused"
    hint_by_default = "Pack plain files and folders anew: no links, no `..`, no two names that differ in case alone."


class ArchiveTooLarge(ArchiveRefused):
    code = "archive_too_large"
    hint_by_default = (
        "Leave out what is not needed, or put the data set in the folder of data sets and register it there."
    )


class ArchiveUnreadable(BadDataset):
    code = "archive_unreadable"
    hint_by_default = "Send a .zip (stored or deflated, no password), .tar or .tar.gz file, whole."


class LayoutUnknown(BadDataset):
    code = "layout_unknown"
    hint_by_default = "Pack the data set in COCO, Pascal VOC or YOLO layout; the documentation shows their folders."


class NoValidationSplit(BadDataset):
    code = "no_validation_split"
    hint_by_default = "Add a validation half, or send `val_fraction=0.1` (`--val-fraction 0.1`) to have a tenth of the images set aside for it."


class BadTeacher(FrsError):
    code = "bad_teacher"
    end_reason = "bad_teacher"
    hint_by_default = "Choose another teacher, or export this one again."


class WeightsNotFound(FrsError):
    code = "weights_not_found"
    end_reason = "bad_teacher"
    hint_by_default = (
        "Put the file under the models folder, or set `init: random` to start from random weights on purpose."
    )


class WeightsUnreadable(BadTeacher):
    code = "weights_unreadable"
    hint_by_default = "Weights are a torch file that holds a `state_dict` of tensors, or a .safetensors file."


class WeightsRefused(BadTeacher):
    code = "weights_refused"
    hint_by_default = "Weights are dense tensors of finite numbers and nothing else: export the detector again."


class TeacherWeightsMismatch(BadTeacher):
    code = "teacher_weights_mismatch"
    hint_by_default = "Describe the detector these weights were trained with: same config, same classes."


class ClassMismatch(FrsError):
    code = "class_mismatch"
    end_reason = "teacher_refused"
    hint_by_default = (
        "Teacher, training file and validation file must have the same classes; order is by ascending category id."
    )


class TeacherNotCompetent(FrsError):
    code = "teacher_not_competent"
    end_reason = "teacher_refused"
    hint_by_default = "Train the teacher longer, or set `distillation.accept_weak_teacher: true` to go on regardless."


class StrideMismatch(FrsError):
    code = "stride_mismatch"
    end_reason = "teacher_refused"
    hint_by_default = "Choose a teacher whose pyramid shares strides with the student's."


class HeadMismatch(FrsError):
    code = "head_mismatch"
    end_reason = "teacher_refused"
    hint_by_default = "Choose a teacher with the student's head, or set `distillation.logit_weight: 0`."


class NoGradient(FrsError):
    code = "no_gradient"
    end_reason = "teacher_refused"
    hint_by_default = (
        "Leave that term out by a weight of 0, or choose another teacher: this one has nothing to tell by it."
    )


class UnsupportedDetector(FrsError):
    code = "unsupported_detector"
    hint_by_default = (
        "Distillation needs a detector with a neck and a sigmoid dense head (RetinaNet, GFL, FCOS, Faster R-CNN)."
    )


class PrecisionUnsupported(FrsError):
    code = "precision_unsupported"
    hint_by_default = "Use `precision: auto`, `fp32` or `bf16`."


class DeviceUnavailable(FrsError):
    code = "device_unavailable"
    hint_by_default = "Ask for fewer `resources.devices`, or leave it out."


class Diverged(FrsError):
    code = "diverged"
    end_reason = "diverged"
    hint_by_default = (
        "Lower `schedule.optimizer.learning_rate`, keep `schedule.max_grad_norm`, or use `precision: fp32`."
    )


class OutOfMemory(FrsError):
    code = "out_of_memory"
    end_reason = "out_of_memory"
    hint_by_default = "Lower `schedule.batch_size` or `schedule.image_size`."


class BatchTooLarge(OutOfMemory):
    code = "batch_too_large"
    hint_by_default = "Set `schedule.batch_size` to what fits, or lower `schedule.image_size`."


class StorageFull(FrsError):
    code = "storage_full"
    hint_by_default = "Free space; the job goes on by itself from its last checkpoint."


class CheckpointUnusable(FrsError):
    code = "checkpoint_unusable"
    hint_by_default = "Start again in an empty work folder."


class DetectionsUnusable(FrsError):
    code = "detections_unusable"
    hint_by_default = "Detections come from a run of this version: train again, in an empty work folder."


class RunsDiffer(FrsError):
    code = "runs_differ"
    hint_by_default = "Compare runs on one data set: as many students as baselines, of the same seeds."
