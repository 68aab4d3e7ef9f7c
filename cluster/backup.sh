#!/bin/sh
# Saves what cannot be made again (MLflow's database, the buckets, the runs), and puts it back.
#   cluster/backup.sh save    PROJECT FOLDER     PROJECT: xray-cuda, xray-tune or xray-train
#   cluster/backup.sh restore PROJECT FOLDER     into empty volumes only: nothing is overwritten
# The environment must be down (`docker compose -f FILE down`, without -v), so that no file is half written.
set -eu
image=${XRAY_IMAGE:-xray-ray:latest}

if [ $# -ne 3 ]; then
  sed -n '2,5s/^# //p' "$0" >&2
  exit 2
fi
action=$1 project=$2
if [ -n "$(docker ps --quiet --filter "label=com.docker.compose.project=$project")" ]; then
  echo "$project is running: take it down first" >&2
  exit 1
fi
mkdir -p "$3"
folder=$(cd "$3" && pwd)

in_image() { # volume:mode, command ...
  mounted=$1
  shift
  docker run --rm --user root --network none -v "$mounted" -v "$folder:/backup" --entrypoint sh "$image" -c "$*"
}

for name in mlflow object-store runs; do
  volume=${project}_$name
  case $action in
    save)
      docker volume inspect "$volume" >/dev/null
      in_image "$volume:/data:ro" "tar -C /data -czf /backup/$name.tgz.part . && mv /backup/$name.tgz.part /backup/$name.tgz"
      ;;
    restore)
      # The labels make the volume compose's own, so that it is used, and removed by `down -v`.
      docker volume create --label "com.docker.compose.project=$project" --label "com.docker.compose.volume=$name" \
        "$volume" >/dev/null
      in_image "$volume:/data" "[ -z \"\$(ls -A /data)\" ] || { echo '$volume is not empty' >&2; exit 1; }; \
        tar -C /data -xzpf /backup/$name.tgz"
      ;;
    *) echo "no such action: $action" >&2 && exit 2 ;;
  esac
  echo "$action: $name"
done
