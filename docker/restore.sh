#!/usr/bin/env bash
# docker/restore.sh FOLDER: puts back what docker/backup.sh saved, in place of what is there, and starts the service.
set -euo pipefail
cd "$(dirname "$0")/.."
. docker/compose.sh

from=${1:?which folder? for example: make restore FROM=backup/2026-01-31}
[ -f "$from/sha256sums" ] || fail "$from is no backup: it has no sha256sums"
(cd "$from" && sha256sum --quiet --check sha256sums) || fail "$from is damaged; nothing was changed"
in_object_storage || [ -f "$from/artifacts.tar" ] || fail "$from has no artifacts; nothing was changed"

compose stop api worker
compose up -d postgres redis
until compose exec -T postgres pg_isready --quiet --username=frs --dbname=frs --host=127.0.0.1; do sleep 1; done
compose exec -T postgres psql --quiet --username=frs --dbname=frs --command='DROP SCHEMA public CASCADE; CREATE SCHEMA public'
compose exec -T postgres pg_restore --username=frs --dbname=frs --no-owner --exit-on-error --single-transaction <"$from/database.dump"
if ! in_object_storage; then
  compose run --rm --no-deps -T migrate sh -c \
    'cd /data && rm -rf artifacts artifacts.part && mkdir artifacts.part && tar -C artifacts.part -xf - && mv artifacts.part artifacts' \
    <"$from/artifacts.tar"
fi
compose up -d
echo "Restored. Jobs that ran when the backup was made go on from their last checkpoint."
