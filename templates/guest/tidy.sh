#!/bin/sh
# Makes the system lean and one that boots anywhere, before it is sealed: snaps, old kernels, firmware, GRUB, a root
# that grows. Run as root; needs no network. Arguments: how many seconds to wait for what is slow, the firmware's
# budget in MiB or "keep". What people should know it says in lines that begin with "note: " or "warning: ".
# It may run again: every step leaves alone what is already right.
set -u
seconds=$1
budget=$2
here=${0%/*}
export DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8

# snapd sets itself up in the background of the first boot; unfinished, every copy would do it again.
if command -v snap > /dev/null 2>&1; then
    timeout "$seconds" snap wait system seed.loaded < /dev/null > /dev/null 2>&1 ||
        echo "warning: snapd has not set itself up within $seconds seconds"
    snap list --all 2> /dev/null | awk '/disabled/ { print $1, $3 }' | while read -r name revision; do
        snap remove "$name" --revision="$revision" < /dev/null > /dev/null 2>&1 &&
            echo "note: the snap $name, revision $revision, removed: a newer one is in use"
    done
    rm -rf /var/lib/snapd/cache/*
fi

# Kernels: the one that runs and the newest. apt itself would keep one more, "in case".
release() { sed 's/^linux-image-\(unsigned-\)\{0,1\}//'; }
images=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' 'linux-image*-[0-9]*' 2> /dev/null |
    sed -n 's/^installed //p' | grep -E '^linux-image-(unsigned-)?[0-9]')
newest=$(echo "$images" | release | sort -V | tail -n 1)
for image in $images; do
    version=$(echo "$image" | release)
    case $version in "$newest" | "$(uname -r)") continue ;; esac
    # shellcheck disable=SC2046 # names of packages have no blanks
    set -- $(dpkg-query -W -f '${db:Status-Status} ${Package}\n' "linux-*-$version" 2> /dev/null |
        sed -n 's/^installed //p')
    # What takes along anything but this kernel's own packages is left alone.
    if apt-get -s purge "$@" 2> /dev/null | awk '$1 == "Purg" || $1 == "Remv" { print $2 }' |
        grep -qvE "^linux-.*-${version%%-[a-z]*}"; then
        echo "warning: the old kernel $version stays, for other packages need it"
    elif apt-get -q -y -o DPkg::Lock::Timeout="$seconds" purge "$@" < /dev/null; then
        echo "note: the old kernel $version removed"
    fi
done
apt-get -q -y -o DPkg::Lock::Timeout="$seconds" autoremove --purge < /dev/null ||
    echo "warning: packages that nothing needs could not be removed"

sh "$here/firmware.sh" "$budget"

# GRUB. Ubuntu's waits 30 seconds after a boot that it takes for failed, such as one before a hard power-off; under
# UEFI with LVM always. Of the installer's own kernel arguments none may stay; `console=` is the system's.
# The menu stays on the screen alone: it is hidden, and noise on an open serial line would stop a boot at it.
grub=/boot/grub/grub.cfg
if [ -e "$grub" ]; then
    changed=
    defaults=/etc/default/grub.d/90-recordfail.cfg
    if [ ! -e "$defaults" ]; then
        mkdir -p "${defaults%/*}"
        echo '# After a hard power-off the system starts at once, instead of waiting 30 seconds in the menu.' > "$defaults"
        echo 'GRUB_RECORDFAIL_TIMEOUT=0' >> "$defaults"
        ! grep -q recordfail "$grub" || changed=yes
    fi
    leftover='autoinstall|ds=nocloud[^ "]*|subiquity[^ "]*|cloud-config-url=[^ "]*|fsck\.mode=skip|layerfs-path=[^ "]*|---'
    for file in /etc/default/grub /etc/default/grub.d/*.cfg; do
        if grep -qE "^GRUB_CMDLINE.*[ \"]($leftover)[ \"]" "$file" 2> /dev/null; then
            # Twice, for neighbours share the blank between them.
            sed -i -E "/^GRUB_CMDLINE/{s/([ \"])($leftover)([ \"])/\1\3/g;s/([ \"])($leftover)([ \"])/\1\3/g}" "$file"
            changed=yes
        fi
    done
    if [ -n "$changed" ]; then
        update-grub > /dev/null 2>&1 || echo "warning: GRUB's menu could not be written anew"
    fi
fi

# The root grows with its disk: cloud-init's own way is off, for students' machines have no cloud-init.
install -m 0755 "$here/grow-root.sh" /usr/local/sbin/grow-root
install -m 0644 "$here/grow-root.service" /etc/systemd/system/grow-root.service
systemctl daemon-reload
systemctl enable grow-root.service > /dev/null 2>&1

# A server of SSH that a class brought makes keys of its own on every copy, for the seal takes them away.
if command -v sshd > /dev/null 2>&1; then
    mkdir -p /etc/systemd/system/ssh.service.d
    cat > /etc/systemd/system/ssh.service.d/host-keys.conf << 'UNIT'
# Makes the host keys that are missing, as all are at the first boot of a copy of this system.
[Service]
ExecStartPre=
ExecStartPre=/usr/bin/ssh-keygen -A
ExecStartPre=/usr/sbin/sshd -t
UNIT
fi

grep -lE '^[^#]*NOPASSWD' /etc/sudoers.d/* 2> /dev/null | grep -v '/90-cloud-init-users$' | while read -r file; do
    echo "warning: $file lets somebody use sudo without a password"
done
exit 0
