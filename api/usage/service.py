"""Read the disk usage."""

from api import disk_quota
from api.context import Context
from api.http.auth import Caller
from api.usage.schemas import Disk, OwnerUsage, Usage
from store.artifacts.free_space import disks
from store.db import api_keys
from store.db.usage import FileKind, stored_bytes


def get_usage(context: Context, caller: Caller) -> Usage:
    """Return the usage of the owners that the caller may see, and the disks."""
    with context.database.read() as session:
        sizes = stored_bytes(session, None if caller.is_admin else caller.owner)
        limits = api_keys.disk_limits(session, context.settings.max_disk_bytes) if caller.is_admin else {}
    sizes.setdefault(caller.owner, dict.fromkeys(FileKind, 0))
    limits[caller.owner] = disk_quota.limit_of(context.settings, caller)
    owners = [
        OwnerUsage(
            owner=owner,
            **{kind.value: size for kind, size in by_kind.items()},
            total=sum(by_kind.values()),
            limit=limits.get(owner, context.settings.max_disk_bytes),
        )
        for owner, by_kind in sizes.items()
    ]
    owners.sort(key=lambda usage: (-usage.total, usage.owner))
    return Usage(owners=owners, disks=[Disk(**vars(disk)) for disk in disks(context.settings)])
