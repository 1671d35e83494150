"""What a schedule does, in words for a plan. This module imports neither torch nor mmdet."""

from frs.schedule_spec import Schedule


def describe_options(schedule: Schedule) -> list[str]:
    """Return a sentence about each option that the schedule sets."""
    sentences = {
        f"A step has {schedule.accumulate} batches of {schedule.batch_size}: {schedule.images_per_step} images.": (
            schedule.accumulate > 1
        ),
        f"The moving average of the weights over about {schedule.averaged_steps:,} steps is evaluated and delivered.": (
            schedule.ema is not None
        ),
        f"Training ends early after {schedule.patience} evaluations without a new highest mAP.": (
            schedule.patience is not None
        ),
        f"The first {schedule.frozen_stages} stages of the student's backbone, and its stem, are not trained.": (
            bool(schedule.frozen_stages)
        ),
        "Images are scaled, cropped and distorted in colour, and mixed if the base config does so.": (
            schedule.augmentation == "strong"
        ),
    }
    return [sentence for sentence, applies in sentences.items() if applies]
