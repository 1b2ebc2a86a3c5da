#!/usr/bin/env bash
# Hosts on one machine: FOLDER SESSIONS NAME… makes a network of their own, with a laptop at 10.77.0.1 (this process)
# and one host for each NAME from 10.77.0.11 on. A host has its own processes, address, home, /tmp/ray, /dev/shm, and
# sshd on port 22; it shares most other files. Says "ready", then ends when its input does, and all in it with it.
# Called by hosts.py, as the first process of namespaces for processes, mounts and network.
set -euo pipefail

own_files() { # in the first three Ray keeps what is one host's, in the others logins are written down
    mount --bind "$folder/hosts" /etc/hosts
    mount --bind /dev/null /etc/resolv.conf # nobody else to ask for names
    mkdir -p /tmp/ray "$sessions"
    for place in /tmp/ray "$sessions" /dev/shm /run /var/log; do mount -t tmpfs tmpfs "$place"; done
}

host() { # NAME ADDRESS: becomes the host's sshd
    until ip link show wire >/dev/null 2>&1; do sleep 0.05; done
    hostname "$1"
    ip link set lo up
    ip addr add "$2/24" dev wire
    ip link set wire up
    ip route add default via 10.77.0.1 # leads nowhere, but Ray learns its own address from it
    own_files
    mkdir /run/sshd
    mount --bind "$folder/$1.passwd" /etc/passwd
    mount --bind "$folder/shadow" /etc/shadow
    exec /usr/sbin/sshd -D -e -f "$folder/sshd_config" 2>"$folder/$1.log"
}

if [ "$1" = host ]; then
    folder=$2 sessions=$3
    host "$4" "$5"
fi

folder=$1 sessions=$2
shift 2
echo 'root:*:::::::' >"$folder/shadow" # no password, and not locked
printf '%s\n' "HostKey $folder/host_key" "AuthorizedKeysFile $folder/key.pub" "PidFile none" "StrictModes no" \
    "PermitRootLogin yes" "PasswordAuthentication no" >"$folder/sshd_config"
printf '%s\n' "127.0.0.1 localhost" "10.77.0.1 laptop" >"$folder/hosts"
number=11
for name in "$@"; do
    echo "10.77.0.$number $name" >>"$folder/hosts"
    sed "s#^root:.*#root:x:0:0:root:$folder/$name:/bin/bash#" /etc/passwd >"$folder/$name.passwd"
    number=$((number + 1))
done

hostname laptop
ip link set lo up
ip link add name bridge type bridge
ip addr add 10.77.0.1/24 dev bridge
ip link set bridge up
own_files
number=11
for name in "$@"; do
    unshare --net --mount --uts --pid --fork --kill-child --mount-proc \
        bash "$0" host "$folder" "$sessions" "$name" "10.77.0.$number" &
    until [ "$(readlink "/proc/$!/ns/net")" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
    ip link add name "to-$name" type veth peer name wire netns $!
    ip link set "to-$name" master bridge up
    until (: >"/dev/tcp/10.77.0.$number/22") 2>/dev/null; do sleep 0.05; done
    number=$((number + 1))
done
echo ready
cat >/dev/null
