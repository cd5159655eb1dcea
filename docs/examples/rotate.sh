#!/usr/bin/env bash
# Rotates a certificate authority by messages alone, with the `nats` tool and jq.
#
#   rotate.sh NATS_URL CLUSTER USER TYPE REASON
#   rotate.sh nats://deploy:PASSWORD@127.0.0.1:4222 acme.cluster deploy host CHG-4411
#
# Says each phase with its position in the log; ends with 3 where a step is refused for good, with 4 where nobody answers.
set -euo pipefail

[ "$#" -eq 5 ] || { sed -n '2,7s/^# \{0,1\}//p' "$0" >&2; exit 2; }
url=$1 cluster=$2 user=$3 type=$4 reason=$5
token=${user//_/U} token=${token//./_}
subject="carousel.v1.${cluster//./_}.cmd.user-$token.rotate"

# Ids of commands carry their time (RFC 9562, version 7): one from another day is refused.
uuid7() {
  local time random
  time=$(printf '%012x' "$(date +%s%3N)")
  random=$(od -An -N9 -tx1 /dev/urandom | tr -d ' \n')
  echo "${time:0:8}-${time:8:4}-7${random:0:3}-8${random:3:3}-${random:6:12}"
}

# One command, sent again as it is until there is an answer: the same id is the same command.
send() {
  local attempt
  for attempt in 1 2 4 8 16; do
    nats --server "$url" --inbox-prefix "_INBOX_$token" --timeout 30s request --raw "$subject" "$1" 2>/dev/null && return
    sleep "$attempt"
  done
  echo "nobody answers on $subject: does \`carousel serve\` run, and may this user publish there?" >&2
  exit 4
}

for phase in init update_clients update_servers standby; do
  while true; do
    # A refusal is on record under its id: whoever tries again makes a new one.
    body=$(jq -n --arg id "$(uuid7)" --arg type "$type" --arg phase "$phase" --arg reason "$reason" \
      '{$id, $type, manual: true, $phase, $reason}')
    answer=$(send "$body")
    code=$(jq -r '.code // empty' <<<"$answer")
    case $code in
      '') jq -r --arg phase "$phase" '"@\(.position) \($phase)"' <<<"$answer"; break ;;
      nodes_lagging | members_lagging | key_missing | publication_time | log_unavailable)
        jq -r '"waiting: \(.detail)"' <<<"$answer" >&2
        sleep "$(jq -r '.retry_after_s // 1' <<<"$answer")" ;;
      *) jq -r '"refused: \(.code): \(.detail)"' <<<"$answer" >&2; exit 3 ;;
    esac
  done
done
