#!/bin/sh
# Makes a coordinator's data folder a member's, once and for good, before the coordinator starts. What an orchestrator runs first:
#
#   verger-member                      comes back when the folder is a member's: it joins as number VERGER_NODE_ID by itself
#
# and what a person runs in the same place, for what must not be guessed:
#
#   verger-member begin NAME           a new cluster, of which this is number 1     (verger cluster init)
#   verger-member join NUMBER          one more, under this number                  (verger cluster join)
#   verger-member replace OLD NUMBER   in the place of one that lost its folder     (verger cluster replace)
#
# VERGER_DATA_DIR, VERGER_PEER_ADDRESS, VERGER_API_ADDRESS, VERGER_ADDR, VERGER_TOKEN_FILE and VERGER_CA_FILE are those of verger cluster.
# VERGER_NODE_ID is the number; without it, one more than the ordinal at the end of POD_NAME. MEMBER_BEGIN, if it is not empty, is the
# name of a cluster that number 1 begins by itself if its folder is empty and nobody answers: for a first installation, and to be taken
# away after it, since a folder that was lost while nobody answers looks the same.
set -eu
trap 'exit 143' TERM INT

data=${VERGER_DATA_DIR:?which folder is it?}
number=${VERGER_NODE_ID:-}
if [ -z "$number" ] && [ -n "${POD_NAME:-}" ]; then
    number=$((${POD_NAME##*-} + 1))
fi
# Exit codes of verger: docs/exit-codes.md.
usage=2
refused=16
unavailable=22

mkdir -p "$data"

say() { echo "verger-member: $*" >&2; }

# A coordinator ran here, or the cluster took the folder: a join that was asked for and not confirmed is not yet that.
is_member() { [ -d "$data/node" ] || [ -e "$data/joined" ]; }
begun() { grep -qs '"first": *true' "$data/member"; }

# One at a time: a person's command, and what is tried meanwhile.
alone() { (flock 9 && "$@") 9> "$data/member.lock"; }

begin() { { begun || verger cluster init "$1" --node-id 1; } && : > "$data/joined"; }
join() { verger cluster join --node-id "$1" && : > "$data/joined"; }
replace() { verger cluster replace "$1" --node-id "$2" && : > "$data/joined"; }

# Whoever answers with a status, and whoever does not take the token or the certificate, is there.
nobody_answers() {
    seen=$(verger cluster status 2> /dev/null) && return 1
    [ $? -eq "$unavailable" ] && [ -z "$seen" ]
}

try() {
    is_member && return
    if begun; then
        : > "$data/joined"
    elif [ "$number" = 1 ] && [ -n "${MEMBER_BEGIN:-}" ] && nobody_answers; then
        begin "$MEMBER_BEGIN"
    else
        join "$number"
    fi
}

advise() {
    say "$data is no member's yet. Unless it joins by itself, one of these helps, in this container:"
    say "  verger-member begin NAME            if this is the first of a new cluster"
    say "  verger-member replace OLD NUMBER    if coordinator OLD lost its folder; NUMBER is one that never was"
    say "  verger-member join NUMBER           if it is one more; NUMBER is one that never was"
}

wait_for_member() {
    : "${number:?VERGER_NODE_ID or POD_NAME is needed}"
    asks=1
    tries=0
    until is_member; do
        if [ "$asks" = 1 ]; then
            alone try && continue
            code=$?
            tries=$((tries + 1))
            # Asked again it would be refused again, and each time is a record of the ledger.
            case $code in "$usage" | "$refused") asks=0 ;; esac
            # Others may just be starting.
            if [ "$asks" = 0 ] || [ "$tries" = 3 ]; then advise; fi
        fi
        sleep 5 &
        wait $!
    done
}

case ${1:-wait} in
    wait) wait_for_member ;;
    begin) alone begin "${2:?the name of the cluster}" ;;
    join) alone join "${2:?the number}" ;;
    replace) alone replace "${2:?the number that leaves}" "${3:?the new number}" ;;
    *) say "$1 is none of begin, join and replace"; exit "$usage" ;;
esac
