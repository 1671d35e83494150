"""What a YOLO data set states of itself: class names, splits and keypoints, in data.yaml or in Darknet's files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import yaml

from frs.dataset.coco import MAX_CLASSES
from frs.dataset.fields import is_text
from frs.dataset.issues import printable
from frs.dataset.upload.annotated_images import list_files
from frs.dataset.upload.archive import normalise_path
from frs.dataset.upload.split_names import SplitRole, find_role
from frs.errors import BadDataset

_MAX_BYTES = 1 << 20
_MAX_DEPTH = 20
_USUAL_NAMES = ("data.yaml", "data.yml", "dataset.yaml")
_CLASS_LISTS = ("classes.txt", "obj.names", "obj.names.txt", "_darknet.labels", "names.txt")


@dataclass(frozen=True)
class YoloConfig:
    """Content of data.yaml, or of a list of class names."""

    file: Path
    classes: tuple[str, ...]
    splits: Mapping[SplitRole, list[str]] = field(default_factory=dict)
    """Paths of the splits as written: folders, images, or text files that list images."""
    root: str = ""
    """What the paths are relative to, as written."""
    others: Sequence[str] = ()
    """Paths of lists of images that state no split, as written."""
    keypoint_values: int | None = None
    """Numbers that follow the box in each label: `kpt_shape` multiplied; None if the file has no `kpt_shape`."""


def find_configs(folder: Path) -> list[YoloConfig]:
    """Return the content of each YAML file of one name, or of Darknet's files; empty if there are no class names.

    All have the same classes: several files must number them alike, and the longest list is used.

    Raises BadDataset if no YAML file has valid `names`, or such files differ.
    """
    configs, errors = _read_yaml_files(folder)
    names = configs or _read_class_lists(folder)
    if not names:
        if errors:
            raise errors[0]
        return []
    longest = _find_longest(names, folder)
    classes, values = _check_names([*longest.classes], longest.file.name), _find_keypoint_values(names, folder)
    return [
        replace(config, classes=classes, keypoint_values=values) for config in configs or _read_darknet(folder, names)
    ]


def has_class_names(folder: Path) -> bool:
    """Return whether there is a YAML file with `names` or a list of class names, valid or not."""
    yaml_files = (file.read_bytes()[:_MAX_BYTES] for file in _find_yaml_files(folder))
    return bool(_find_class_lists(folder)) or any(b"names" in content for content in yaml_files)


def read_text(file: Path, max_bytes: int) -> str:
    """Return the text of a file. Raises BadDataset if it is not UTF-8 or too large."""
    if file.stat().st_size > max_bytes:
        raise BadDataset(f"{printable(file.name)} has more than {max_bytes >> 20} MiB.")
    try:
        return file.read_text("utf-8-sig")
    except ValueError as error:
        raise BadDataset(f"{printable(file.name)} is not UTF-8 text.", "Save it as UTF-8 and upload again.") from error


def resolve(
    config: YoloConfig, entry: str, top: Path, base: Path | None = None, others: Iterable[str] = ()
) -> Path | None:
    """Return the file or folder of the archive that a path in the configuration means; None if it is not there.

    Such paths are relative to `path`, to the YAML file or to `base`, or they are those of the author's machine: then
    their end counts, as long as it is not also the end of one of the `others`, the paths of other splits.
    """
    is_absolute, full = _get_parts(config, entry)
    different = [path for _, path in (_get_parts(config, other) for other in others) if path != full]
    parts = _split_path(entry)
    loose = is_absolute or config.file.suffix not in (".yaml", ".yml") or base is not None
    shortest = 1 if loose else len(parts)
    for length in range(len(full), max(shortest, 1) - 1, -1):
        end = full[len(full) - length :]
        if any(other[-length:] == end for other in different):
            return None
        for parent in dict.fromkeys(filter(None, (base, config.file.parent, top))):
            path = parent.joinpath(*end)
            if _exists(path):
                return path
    return config.file.parent if not parts and not is_absolute else None


def _get_parts(config: YoloConfig, entry: str) -> tuple[bool, list[str]]:
    """Return whether a path is absolute, and its parts; those of a relative path follow those of `path`."""
    is_absolute = PurePosixPath(entry).is_absolute() or PureWindowsPath(entry).is_absolute()
    return is_absolute, [*([] if is_absolute else _split_path(config.root)), *_split_path(entry)]


def _split_path(text: str) -> list[str]:
    """Return the parts of a path of any system, without its drive, `.` and `..`."""
    parts = normalise_path(text.strip()).split("/")
    return [part for part in parts if part not in ("", ".", "..") and not part.endswith(":")]


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # such as a name that is too long
        return False


def _read_yaml_files(folder: Path) -> tuple[list[YoloConfig], list[BadDataset]]:
    """Return the content of the first valid YAML file and of others of its name, and the errors of all files.

    Raises BadDataset if an equally likely file of another name numbers the classes differently.
    """
    configs: list[YoloConfig] = []
    errors: list[BadDataset] = []
    for file in _find_yaml_files(folder):
        is_other = bool(configs) and file.name != configs[0].file.name
        if is_other and _rank_yaml(file) != _rank_yaml(configs[0].file):
            continue
        try:
            content = _parse_yaml(read_text(file, _MAX_BYTES), file.name)
            if not isinstance(content, dict) or "names" not in content:
                raise BadDataset(f"{file.name} has no `names`, a list of 1 to {MAX_CLASSES:,} class names.")
            config = _read_yaml(file, content)
        except BadDataset as error:
            errors.append(error)
            continue
        if is_other:
            _find_longest([configs[0], config], folder)
        else:
            configs.append(config)
    return configs, errors


def _read_class_lists(folder: Path) -> list[YoloConfig]:
    """Return the content of the list of class names, and of others of its name.

    Raises BadDataset if a line before the last name is blank.
    """
    configs = []
    files = _find_class_lists(folder)
    for file in files:
        if file.name != files[0].name:
            continue
        names = [line.strip() for line in read_text(file, _MAX_BYTES).rstrip().splitlines()]
        if "" in names:
            raise BadDataset(
                f"{_relative_name(file, folder)}, line {names.index('') + 1}, is blank, so the numbers of the classes "
                "below it are uncertain.",
                "Remove the line, or write a name there: line 1 is class 0 of the labels.",
            )
        configs.append(YoloConfig(file, tuple(names)))
    return configs


def _find_class_lists(folder: Path) -> list[Path]:
    files = [path for name in _CLASS_LISTS for path in sorted(folder.rglob(name))]
    return files + list_files(folder, (".names",))


def _find_longest(configs: Sequence[YoloConfig], folder: Path) -> YoloConfig:
    """Return the first of those with the most classes. Raises BadDataset if another one numbers them differently."""
    longest = max(configs, key=lambda config: len(config.classes))
    for config in configs:
        for number, (name, other) in enumerate(zip(longest.classes, config.classes, strict=False)):
            if name != other:
                raise BadDataset(
                    f"Class {number} is {printable(name)} in {_relative_name(longest.file, folder)}, but "
                    f"{printable(other)} in {_relative_name(config.file, folder)}.",
                    "Number the classes alike in all label files, keep one of these files, and upload again.",
                )
    return longest


def _find_keypoint_values(configs: Sequence[YoloConfig], folder: Path) -> int | None:
    stated = [config for config in configs if config.keypoint_values is not None]
    for config in stated:
        if config.keypoint_values != stated[0].keypoint_values:
            first, other = (_relative_name(config.file, folder) for config in (stated[0], config))
            raise BadDataset(
                f"`kpt_shape` differs in {first} and {other}.",
                "Upload labels with the same keypoints only, or remove the keypoints from the labels.",
            )
    return stated[0].keypoint_values if stated else None


def _find_yaml_files(folder: Path) -> list[Path]:
    return sorted(list_files(folder, (".yaml", ".yml")), key=lambda path: (*_rank_yaml(path), path))


def _rank_yaml(file: Path) -> tuple[bool, int]:
    """Return how likely a YAML file describes the data set: the usual names first, then those in few folders."""
    return file.name not in _USUAL_NAMES, len(file.parts)


def _relative_name(file: Path, folder: Path) -> str:
    return printable(file.relative_to(folder).as_posix())


def _read_yaml(file: Path, content: dict[str, Any]) -> YoloConfig:
    names = content["names"]
    if isinstance(names, dict):
        numbers = {int(key): name for key, name in names.items() if key.isascii() and key.isdigit() and len(key) < 10}
        if len(numbers) < len(names) or set(numbers) != set(range(len(numbers))):
            raise BadDataset(f"{file.name}: the keys of `names` are not the numbers from 0 without gaps.")
        names = [numbers[number] for number in range(len(numbers))]
    splits = {role: _read_entries(content[key]) for key in content if key.isalpha() and (role := find_role(key))}
    others = [
        entry
        for key in content
        if find_role(key) is None
        for entry in _read_entries(content[key])
        if entry.lower().endswith(".txt")
    ]
    root = content.get("path")
    return YoloConfig(
        file,
        _check_names(names, file.name),
        splits,
        root if isinstance(root, str) else "",
        others,
        _read_keypoint_values(content.get("kpt_shape"), file.name),
    )


def _check_names(names: Any, file_name: str) -> tuple[str, ...]:
    if not isinstance(names, list) or not 0 < len(names) <= MAX_CLASSES:
        raise BadDataset(f"{file_name} has no `names`, a list of 1 to {MAX_CLASSES:,} class names.")
    if not all(is_text(name, 200) for name in names) or len(set(names)) < len(names):
        raise BadDataset(f"{file_name}: `names` must be distinct texts of 1 to 200 characters.")
    return tuple(names)


def _read_entries(value: Any) -> list[str]:
    return [entry for entry in (value if isinstance(value, list) else [value]) if isinstance(entry, str) and entry]


def _read_keypoint_values(shape: Any, file_name: str) -> int | None:
    if shape is None:
        return None
    if isinstance(shape, list) and len(shape) == 2 and all(isinstance(n, str) and n.isdigit() for n in shape):
        points, values = (int(number[:6]) for number in shape)
        if values in (2, 3) and points:
            return points * values
    raise BadDataset(
        f"{file_name}: `kpt_shape` must be two numbers: of keypoints, and 2 or 3 values for each.",
        "Write for example `kpt_shape: [17, 3]`, or remove it if the labels are boxes.",
    )


def _read_darknet(folder: Path, lists: Sequence[YoloConfig]) -> list[YoloConfig]:
    """Return the splits that each `obj.data` of Darknet names, `train = data/train.txt`, and the other lists of names.

    A list of class names beside an `obj.data` belongs to it.
    """
    configs = []
    for file in list_files(folder, (".data",)):
        pairs = (line.split("=", 1) for line in read_text(file, _MAX_BYTES).splitlines() if "=" in line)
        splits = {role: [value.strip()] for key, value in pairs if (role := find_role(key)) and value.strip()}
        configs.append(YoloConfig(file, (), splits))
    parents = {config.file.parent for config in configs}
    return configs + [config for config in lists if config.file.parent not in parents]


def _parse_yaml(text: str, name: str) -> Any:
    """Parse YAML with every value as the text that is written: a class may be called `1`, `yes` or `null`.

    Aliases, which can expand a few lines to gigabytes, and tags are refused.
    """
    try:
        depth = 0
        for event in yaml.parse(text, Loader=yaml.BaseLoader):
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) or depth > _MAX_DEPTH:
                raise BadDataset(
                    f"{name} uses aliases or tags, or is nested too deeply.", "Write the class names as a plain list."
                )
        return yaml.load(text, Loader=yaml.BaseLoader)  # noqa: S506 - creates only texts, lists and dictionaries
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise BadDataset(f"{name}{line}: is not valid YAML.") from error
    except (yaml.YAMLError, ValueError, TypeError, RecursionError, OverflowError) as error:
        raise BadDataset(f"{name} is not valid YAML.") from error
