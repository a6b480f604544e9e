#!/bin/sh
# Makes what the trial of compose.yaml needs before it starts, once: certificates, tokens and keys, drawn at random, in one volume of which
# each container sees its own folder alone. Nothing of it is for anything but a trial on one machine.
#
#   setup.sh secrets DIR                     certificates and their authorities, the owner's token, keys of the store and of NATS
#   setup.sh nats DIR MEMBER TEMPLATE        the configuration of NATS: TEMPLATE for the fleet that the file MEMBER names
#   setup.sh worker-token DIR                a token for workers, from a coordinator that runs
set -eu
umask 077

random() { openssl rand -base64 32 | tr '+/' '-_' | tr -d '=\n'; }

# authority NAME: a key that signs, and its certificate.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 \
        -keyout "$dir/authority/$1.key" -out "$dir/authority/$1.pem" -subj "/CN=verger trial, $1" 2> /dev/null
}

# certificate AUTHORITY FOLDER/NAME NAMES
certificate() {
    openssl req -x509 -CA "$dir/authority/$1.pem" -CAkey "$dir/authority/$1.key" -newkey ec -pkeyopt ec_paramgen_curve:P-256 \
        -nodes -days 365 -keyout "$dir/$2.key" -out "$dir/$2.pem" -subj "/CN=verger trial" \
        -addext "subjectAltName=$3" -addext basicConstraints=critical,CA:FALSE 2> /dev/null
}

# Bytes, and their CRC-16 with its low byte first, in base32: how NKeys are written.
sealed() {
    hex=$(od -An -v -tx1 | tr -d ' \n')
    crc=0
    rest=$hex
    while [ -n "$rest" ]; do
        crc=$((crc ^ 0x${rest%"${rest#??}"} << 8))
        rest=${rest#??}
        for _ in 1 2 3 4 5 6 7 8; do
            crc=$((crc << 1))
            if [ $((crc & 0x10000)) -ne 0 ]; then crc=$((crc ^ 0x11021)); fi
        done
    done
    hex=$hex$(printf '%02x%02x' $((crc & 255)) $((crc >> 8)))
    while [ -n "$hex" ]; do
        printf "\\$(printf '%03o' "0x${hex%"${hex#??}"}")"
        hex=${hex#??}
    done | base32 -w 0 | tr -d =
    echo
}

# nkey FILE: a user's seed into FILE; says the public key.
nkey() {
    openssl genpkey -algorithm ed25519 -outform DER -out "$1.der"
    { printf '\225\000'; tail -c 32 "$1.der"; } | sealed > "$1"
    { printf '\240'; openssl pkey -inform DER -in "$1.der" -pubout -outform DER | tail -c 32; } | sealed
    rm "$1.der"
}

secrets() {
    dir=$1
    if [ -e "$dir/made" ]; then return; fi
    mkdir -p "$dir/authority" "$dir/workers" "$dir/s3" "$dir/s3-data" "$dir/nats" "$dir/nats-data"
    authority peers
    authority api
    authority nats
    owner=vgr_$(random)
    for n in 1 2 3; do
        mkdir -p "$dir/coordinator-$n/config/verger/tokens"
        certificate peers "coordinator-$n/peer" "DNS:node-$n,DNS:coordinator-$n"
        certificate api "coordinator-$n/api" "DNS:coordinator-$n,DNS:localhost,IP:127.0.0.1"
        cp "$dir/authority/peers.pem" "$dir/coordinator-$n/peers.pem"
        cp "$dir/authority/api.pem" "$dir/coordinator-$n/ca.pem"
        # Where a coordinator that listens on 0.0.0.0:7420 looks for its owner's token: all three have the same.
        echo "$owner" > "$dir/coordinator-$n/config/verger/tokens/0.0.0.0_7420"
    done
    cp "$dir/authority/api.pem" "$dir/workers/ca.pem"
    store
    queue
    : > "$dir/made"
}

store() {
    key=trial-$(openssl rand -hex 8)
    secret=$(random)
    printf '[default]\naws_access_key_id=%s\naws_secret_access_key=%s\n' "$key" "$secret" > "$dir/s3/credentials"
    printf '{"identities":[{"name":"trial","credentials":[{"accessKey":"%s","secretKey":"%s"}],"actions":["Admin","Read","Write","List","Tagging"]}]}\n' \
        "$key" "$secret" > "$dir/s3/s3.json"
    for who in coordinator-1 coordinator-2 coordinator-3 workers; do
        cp "$dir/s3/credentials" "$dir/$who/store"
    done
}

queue() {
    certificate nats nats/server "DNS:nats"
    mv "$dir/nats/server.pem" "$dir/nats/server.crt"
    nkey "$dir/coordinator-1/nats.nk" > "$dir/nats/coordinator.pub"
    nkey "$dir/workers/nats.nk" > "$dir/nats/worker.pub"
    for who in coordinator-1 coordinator-2 coordinator-3 workers; do
        cp "$dir/authority/nats.pem" "$dir/$who/nats-ca.pem"
    done
    cp "$dir/coordinator-1/nats.nk" "$dir/coordinator-2/nats.nk"
    cp "$dir/coordinator-1/nats.nk" "$dir/coordinator-3/nats.nk"
}

# The fleet's number is known when its cluster was begun.
nats() {
    dir=$1
    fleet=$(sed -n 's/.*"fleet": *"\([0-9a-f]\{8\}\)".*/\1/p' "$2")
    if [ -z "$fleet" ]; then echo "setup.sh: $2 names no fleet" >&2; exit 17; fi
    capitals=$(echo "$fleet" | tr a-f A-F)
    sed -e "s/0a1b2c3d/$fleet/g" -e "s/0A1B2C3D/$capitals/g" \
        -e "s/COORDINATOR_NKEY/$(cat "$dir/nats/coordinator.pub")/" -e "s/WORKER_NKEY/$(cat "$dir/nats/worker.pub")/" \
        "$3" > "$dir/nats/nats.conf.new"
    mv "$dir/nats/nats.conf.new" "$dir/nats/nats.conf"
}

worker_token() {
    dir=$1
    if [ -s "$dir/token" ]; then return; fi
    # A name is never given twice, and an answer may have been lost: each try has a name of its own.
    verger token create "workers-$(openssl rand -hex 4)" --scope work --all-tenants > "$dir/token.new"
    mv "$dir/token.new" "$dir/token"
}

case ${1:-} in
    secrets) secrets "${2:?the folder}" ;;
    nats) nats "${2:?the folder}" "${3:?the file member}" "${4:?the template}" ;;
    worker-token) worker_token "${2:?the folder}" ;;
    *) echo "setup.sh: give secrets, nats or worker-token, and what belongs to it" >&2; exit 2 ;;
esac
