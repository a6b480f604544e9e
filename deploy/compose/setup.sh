#!/bin/sh
# Makes what the trial of compose.yaml needs before it starts, once: certificates, tokens and keys, drawn at random, in one volume of which
# each container sees its own folder alone. Nothing of it is for anything but a trial on one machine.
#
#   setup.sh secrets DIR         certificates of both authorities, the owner's token, keys of the store
#   setup.sh worker-token DIR    a token for workers, from a coordinator that runs
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

secrets() {
    dir=$1
    if [ -e "$dir/made" ]; then return; fi
    mkdir -p "$dir/authority" "$dir/workers" "$dir/s3" "$dir/s3-data" "$dir/nats-data"
    authority peers
    authority api
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

worker_token() {
    dir=$1
    if [ -s "$dir/token" ]; then return; fi
    # A name is never given twice, and an answer may have been lost: each try has a name of its own.
    verger token create "workers-$(openssl rand -hex 4)" --scope work --all-tenants > "$dir/token.new"
    mv "$dir/token.new" "$dir/token"
}

case ${1:-} in
    secrets) secrets "${2:?the folder}" ;;
    worker-token) worker_token "${2:?the folder}" ;;
    *) echo "setup.sh: give secrets DIR or worker-token DIR" >&2; exit 2 ;;
esac
