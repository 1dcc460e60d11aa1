# Puts a machine on its cluster's private network, for good where the guest's own network manager is known:
#   sh join.sh NAME MAC IPV4/PREFIX IPV6/PREFIX [ADDRESS NAME]...
# Prints the interface, and what keeps the address over a reboot. Status 90: no card; 91: no address.
name=$1 mac=$2 v4=$3 v6=$4
shift 4

found() {
    for card in /sys/class/net/*; do
        if [ "$(cat "$card/address" 2>/dev/null)" = "$mac" ]; then echo "${card##*/}"; return; fi
    done
}

tries=0
until device=$(found) && [ -n "$device" ]; do
    if [ $tries = 20 ] && [ -w /sys/bus/pci/rescan ]; then echo 1 >/sys/bus/pci/rescan; fi
    tries=$((tries + 1))
    if [ $tries -gt 100 ]; then exit 90; fi
    sleep 0.1 2>/dev/null || sleep 1
done

# udev renames a new card
if command -v udevadm >/dev/null; then udevadm settle --timeout=20; device=$(found); fi

active() { systemctl is-active --quiet "$1" 2>/dev/null; }

if active systemd-networkd; then
    kept=systemd-networkd
    cat >/etc/systemd/network/05-vmsnap-lan.network <<END
[Match]
MACAddress=$mac

[Link]
RequiredForOnline=no

[Network]
DHCP=no
IPv6AcceptRA=no
IPv6DuplicateAddressDetection=0
ConfigureWithoutCarrier=yes
Address=$v4
Address=$v6
END
    networkctl reload
    networkctl reconfigure "$device" 2>/dev/null
elif active NetworkManager; then
    kept=NetworkManager
    nmcli --wait 20 connection add type ethernet con-name vmsnap-lan ifname "*" mac "$mac" \
        ipv4.method manual ipv4.addresses "$v4" ipv4.never-default yes \
        ipv6.method manual ipv6.addresses "$v6" ipv6.never-default yes >/dev/null
    nmcli --wait 20 connection up vmsnap-lan >/dev/null 2>&1
elif command -v ifup >/dev/null && [ -f /etc/network/interfaces ]; then
    kept=ifupdown
    mkdir -p /etc/network/interfaces.d
    grep -q 'interfaces\.d' /etc/network/interfaces || echo 'source /etc/network/interfaces.d/*' >>/etc/network/interfaces
    cat >/etc/network/interfaces.d/vmsnap-lan <<END
auto $device
iface $device inet static
    address $v4
iface $device inet6 static
    address $v6
END
    ifup "$device" >/dev/null 2>&1
else
    kept=nothing
fi

has() { ip addr show dev "$device" 2>/dev/null | grep -q "${1%/*}[/ ]"; }

if command -v ip >/dev/null; then
    ip link set dev "$device" up
    tries=0
    until has "$v4" && has "$v6"; do
        if [ $tries -gt 3 ] || [ $kept = nothing ]; then
            has "$v4" || ip addr add "$v4" dev "$device" 2>/dev/null
            has "$v6" || ip -6 addr add "$v6" dev "$device" nodad 2>/dev/null || ip -6 addr add "$v6" dev "$device" 2>/dev/null
        fi
        [ -e /proc/net/if_inet6 ] || { has "$v4" && break; }
        tries=$((tries + 1))
        if [ $tries -gt 100 ]; then exit 91; fi
        sleep 0.1 2>/dev/null || sleep 1
    done
else
    ifconfig "$device" "${v4%/*}" netmask 255.255.255.0 up || exit 91
    ifconfig "$device" add "$v6" 2>/dev/null
fi

if [ -d /etc/cloud/cloud.cfg.d ]; then # else cloud-init writes both anew at each boot
    printf 'preserve_hostname: true\nmanage_etc_hosts: false\n' >/etc/cloud/cloud.cfg.d/99-vmsnap-lan.cfg
fi
echo "$name" >/proc/sys/kernel/hostname
echo "$name" >/etc/hostname
if [ -f /etc/hosts ]; then sed -i '/^# vmsnap: /,/^# vmsnap end/d' /etc/hosts; fi
{
    echo "# vmsnap: the machines of this cluster"
    while [ $# -gt 1 ]; do
        echo "$1 $2"
        shift 2
    done
    echo "# vmsnap end"
} >>/etc/hosts
echo "$device $kept"
