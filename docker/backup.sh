#!/usr/bin/env bash
# docker/backup.sh FOLDER: database and artifacts of the running service, into a new folder. Nothing has to stop.
#
# A row is written after its file, and a file deleted after its row. So links to all artifacts are made before the dump
# and after it: what the dump's rows name is among them. With artifacts in object storage only the database is saved.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/compose.sh

to=${1:?which folder? for example: make backup TO=backup/$(date +%F)}
[ ! -e "$to" ] || fail "$to is there already; name another folder"
part="$to.part"
rm -rf "$part" && mkdir -p "$part" && chmod 700 "$part"
links=/data/.backup
inside() { compose exec -T api sh -c "$1"; }
trap 'inside "rm -rf $links $links.errors" || true' EXIT

# of a file deleted meanwhile there is nothing to link; anything else is an error
link="mkdir -p $links && cp -alf /data/artifacts/. $links/ 2>$links.errors || ! grep -v 'No such file' $links.errors >&2"

if in_object_storage; then
  echo "The artifacts are in object storage ($FRS_ARTIFACTS_URL): its own backup is theirs. Saving the database."
else
  inside "rm -rf $links; $link"
fi
compose exec -T postgres pg_dump --username=frs --format=custom frs >"$part/database.dump"
if ! in_object_storage; then
  inside "$link"
  inside "tar -C $links --exclude='.*.part' -cf - ." >"$part/artifacts.tar"
fi
(cd "$part" && sha256sum -- * >sha256sums)
sync
mv "$part" "$to"
du -sh "$to"
echo "Keep .env and .secrets/api-key, too: they are not in it. make restore FROM=$to brings it back."
