# What the WalT appliance contains. `go run ./image lock` resolves the packages
# named here into image/appliance.lock; `go run ./image build` composes the image.

name    = "walt"
version = "10.0" # of upstream WalT, as announced to clients

debian {
  architecture = "amd64"
  suites       = ["trixie", "trixie-security"]
  components   = ["main"] # and "non-free-firmware": see root
  keys = [
    "B8B80B5B623EAB6AD8775C45B7C5D7D6350947F8", # archive, 12/bookworm
    "04B54C3CDCA79751B16BC6B5225629DF75B188BD", # archive, 13/trixie
    "41587F7DB8C774BCCF131416762F67A0B2C39DE4", # stable release, 13/trixie
    "05AB90340C0C5E797F44A8C8254CF3B5AEC0A8F0", # security archive, 12/bookworm
    "5E04A1E3223A19A20706E20F9904613D4CCE68C6", # security archive, 13/trixie
  ]
  alternatives = ["mawk"]

  # Nothing of the image runs maintainer scripts, systemd or Perl; the kernel's
  # initramfs is ours, and PostgreSQL does without its compiler.
  excluded = [
    "adduser",
    "base-passwd",
    "cpio",
    "cron",
    "debconf",
    "debconf-2.0",
    "debianutils",
    "dmsetup",
    "dpkg",
    "init-system-helpers",
    "initramfs-tools",
    "keyutils",
    "kmod",
    "libllvm19",
    "libpam-runtime",
    "libz3-4",
    "linux-base",
    "linux-initramfs-tool",
    "locales",
    "login",
    "logsave",
    "passwd",
    "perl",
    "perl-base",
    "postgresql-client-common",
    "postgresql-common",
    "python3",
    "runit-helper",
    "sensible-utils",
    "ssl-cert",
    "systemd",
    "systemd-sysv",
    "sysvinit-utils",
    "tiny-initramfs",
    "dracut",
    "ucf",
    "udev",
  ]
}

disk {
  esp  = "128M"
  slot = "512M"
}

# An appliance is for one of these; the others have a lock of their own, as
# appliance-arm64.lock (`go run ./image lock --architecture arm64`). Nodes are for the
# architecture that debian names, in any case.
architecture "amd64" {
  kernel   = "linux-image-amd64"
  command  = "console=tty0 console=ttyS0 panic=10"
  modules  = ["sha256_ssse3", "ata_piix", "vmw_pvscsi"]
  packages = ["qemu-system-x86"] # virtual nodes
}
architecture "arm64" {
  kernel   = "linux-image-arm64"
  command  = "console=tty0 console=ttyAMA0 panic=10"
  modules  = ["sha2-ce", "sha256-arm64", "virtio_mmio"]
  packages = ["qemu-system-arm"] # virtual nodes
}

boot {
  packages = ["systemd-boot-efi"] # what unified kernel images begin with

  # What it takes to find the disk and mount the root; everything else is loaded
  # from there.
  modules = [
    "dm-mod", "dm-verity", "erofs", "ext4", "crc32c_generic", "sha256_generic",
    "vfat", "nls_ascii", "nls_cp437", "nls_iso8859-1",
    "virtio_pci", "virtio_blk", "virtio_scsi", "ahci", "sd_mod", "nvme",
    "usb-storage", "uas", "xhci-pci", "ehci-pci", "mmc_block", "sdhci-pci", "sdhci-acpi",
    "megaraid_sas", "mpt3sas", "mptsas", "hpsa", "aacraid", "hv_storvsc",
    "qemu_fw_cfg", "overlay", "loop", "efivarfs", "efi-pstore",
  ]
}

# What makers let Debian pass on, but not change, is left out. A server that needs it: add the
# component above, firmware of devices here, as "firmware-realtek", and microcode to the packages
# of its architecture, as "intel-microcode"; then `go run ./image lock`.
root {
  packages = [
    # services
    "postgresql-17", "postgresql-client-17",
    "nfs-kernel-server", "nfs-common", "rpcbind",
    "chrony",
    "openssh-server", "openssh-client",
    "ipxe",
    # what units and the supervisor call
    "e2fsprogs", "iputils-ping", "iproute2", "nftables",
    # names, time zones, certificates
    "libc-bin", "netbase", "tzdata", "ca-certificates",
    # administrators
    "bash", "coreutils", "grep", "sed", "mawk", "findutils", "gzip", "tar", "less", "procps", "util-linux", "mount",
    "nano", "ncurses-base",
  ]

  drop = [
    "/usr/share/doc", "/usr/share/man", "/usr/share/info", "/usr/share/locale", "/usr/share/lintian",
    "/usr/share/bug", "/usr/share/doc-base", "/usr/share/bash-completion", "/usr/share/zsh",
    "/usr/share/perl5", "/usr/share/apport", "/usr/share/initramfs-tools", "/usr/share/menu",
    "/usr/share/pixmaps", "/usr/share/gcc", "/usr/share/gdb", "/usr/share/locales",
    "/usr/include", "/usr/lib/systemd", "/usr/lib/tmpfiles.d", "/usr/lib/sysusers.d", "/usr/lib/modprobe.d",
    "/usr/lib/udev", "/usr/lib/*-linux-gnu/perl*", "/usr/lib/pkgconfig", "/usr/lib/*-linux-gnu/pkgconfig",
    "/usr/lib/*-linux-gnu/*.a", "/usr/lib/init", "/usr/lib/initramfs-tools", "/usr/lib/valgrind",
    "/etc/init.d", "/etc/default", "/etc/cron.*", "/etc/logrotate.d", "/etc/pam.d", "/etc/security",
    "/etc/ssh/sshd_config.d", "/etc/ufw", "/etc/apparmor.d", "/etc/systemd", "/etc/NetworkManager",
    "/etc/initramfs-tools", "/etc/kernel", "/etc/dhcp", "/etc/ppp", "/etc/postgresql-common", "/etc/rc*.d",
    "/var", # it is the data partition
    # PostgreSQL: the compiler's bitcode and provider, and the documentation of its catalogues
    "/usr/lib/postgresql/17/lib/llvmjit*", "/usr/lib/postgresql/17/lib/bitcode", "/usr/lib/postgresql/17/lib/pgxs",
    # iPXE: what node boot does not use
    "/usr/lib/ipxe/*.iso", "/usr/lib/ipxe/*.lkrn", "/usr/lib/ipxe/*.usb",
    # QEMU: other machines than virtual nodes, screens, sound, USB, and firmware of what they do not have
    "/usr/bin/qemu-system-i386", "/usr/bin/qemu-system-x86_64-microvm", "/usr/bin/qemu-pr-helper", "/usr/bin/qemu-vmsr-helper",
    "/usr/lib/*-linux-gnu/qemu", "/usr/lib/qemu", "/usr/lib/ipxe/qemu", "/usr/share/alsa",
    "/usr/share/qemu/*.rom", "/usr/share/qemu/*.lid", "/usr/share/qemu/*.dtb", "/usr/share/qemu/*.img", "/usr/share/qemu/*.gz",
    "/usr/share/qemu/OVMF*", "/usr/share/qemu/QEMU,*", "/usr/share/qemu/openbios-*", "/usr/share/qemu/u-boot*",
    "/usr/share/qemu/slof.bin", "/usr/share/qemu/vof.bin", "/usr/share/qemu/palcode-*", "/usr/share/qemu/npcm*",
    "/usr/share/qemu/trace-events-all", "/usr/share/qemu/keymaps", "/usr/share/qemu/firmware",
    "/usr/share/seabios/vgabios*", "/usr/share/seabios/bios-microvm.bin", "/usr/share/seabios/bios.bin", "/usr/share/seabios/*.aml",
    "/usr/lib/*-linux-gnu/libasound.*", "/usr/lib/*-linux-gnu/libbrlapi.*", "/usr/lib/*-linux-gnu/libcacard.*",
    "/usr/lib/*-linux-gnu/libpcsclite*", "/usr/lib/*-linux-gnu/libusb*", "/usr/lib/*-linux-gnu/libexecs.*",
    "/usr/lib/*-linux-gnu/libnss3.so", "/usr/lib/*-linux-gnu/libnssutil3.so", "/usr/lib/*-linux-gnu/libsmime3.so",
    "/usr/lib/*-linux-gnu/libssl3.so", "/usr/lib/*-linux-gnu/libnssckbi.so", "/usr/lib/*-linux-gnu/libnssdbm3.*",
    "/usr/lib/*-linux-gnu/libsoftokn3.*", "/usr/lib/*-linux-gnu/libfreebl*", "/usr/lib/*-linux-gnu/libnspr4.so",
    "/usr/lib/*-linux-gnu/libplc4.so", "/usr/lib/*-linux-gnu/libplds4.so",
    # the kernel is on the ESP
    "/boot",
    # modules of devices that no server of this kind drives
    "/usr/lib/modules/*/kernel/sound",
    "/usr/lib/modules/*/kernel/drivers/gpu", "/usr/lib/modules/*/kernel/drivers/media",
    "/usr/lib/modules/*/kernel/drivers/staging", "/usr/lib/modules/*/kernel/drivers/iio",
    "/usr/lib/modules/*/kernel/drivers/infiniband", "/usr/lib/modules/*/kernel/drivers/isdn",
    "/usr/lib/modules/*/kernel/drivers/bluetooth", "/usr/lib/modules/*/kernel/net/bluetooth",
    "/usr/lib/modules/*/kernel/drivers/net/wireless", "/usr/lib/modules/*/kernel/net/wireless",
    "/usr/lib/modules/*/kernel/net/mac80211", "/usr/lib/modules/*/kernel/drivers/comedi",
  ]
}

node_image "waltplatform/pc-x86-64-default:latest" {
  model = "pc-x86-64"
  labels = {
    "walt.node.models" = "pc-x86-64"
  }
  packages = ["busybox", "dropbear-bin", "libc-bin", "netbase", "tzdata"]

  # To reach an NFS root over any usual wired network.
  modules = [
    "nfs", "nfsv3", "overlay", "nbd", "squashfs", "loop",
    "virtio_pci", "virtio_net", "e1000", "e1000e", "igb", "igc", "ixgbe", "i40e", "ice",
    "r8169", "8139cp", "8139too", "tg3", "bnx2", "bnx2x", "bnxt_en", "forcedeth", "atl1c", "alx", "sky2",
    "mlx4_en", "mlx5_core", "vmxnet3", "hv_netvsc", "ena", "af_packet", "netconsole",
  ]

  drop = [
    "/usr/share/doc", "/usr/share/man", "/usr/share/info", "/usr/share/locale", "/usr/share/lintian",
    "/usr/share/bug", "/usr/share/initramfs-tools", "/usr/share/gcc", "/usr/share/gdb",
    "/usr/lib/systemd", "/usr/lib/initramfs-tools", "/etc/init.d", "/etc/default", "/etc/cron.*", "/etc/apt",
    "/var/lib/dpkg", "/var/cache",
  ]
}

# Programs that the build runs and tests judge with.
tool "build" {
  packages = [
    "erofs-utils", "kmod", "systemd-boot-efi", "dosfstools", "mtools", "gdisk", "cryptsetup-bin", "e2fsprogs",
    "sbsigntool", "efitools", "openssl", "minisign", "xorriso",
  ]
}

# Programs of the lab.
tool "lab" {
  packages = ["qemu-system-x86", "qemu-utils", "ovmf", "ipxe-qemu", "seabios"]
}

# What boots an appliance for arm64; fetched when a test asks for it.
tool "lab-arm64" {
  packages = ["qemu-system-arm", "qemu-efi-aarch64"]
}

# Interpreter of the walt client.
tool "python" {
  packages = ["python3", "python3-pip"]
}

# The walt client; what it shares with the server is given to clients of another
# version, which update themselves. The documentation comes with them.
wheels "client" {
  requirements = ["walt-client==10.0", "plumbum<2"]
  shipped      = ["walt-client", "walt-common", "walt-doc"]
}

user "root" {
  id    = 0
  home  = "/root"
  shell = "/bin/bash"
}
user "postgres" {
  id    = 970
  home  = "/var/lib/postgresql"
  shell = "/bin/bash"
}
user "walt-hub" { id = 971 }
user "walt-db" { id = 972 }
user "walt-blocking" { id = 973 }
user "walt-net" { id = 974 }
user "sshd" {
  id   = 975
  home = "/run/sshd"
}
user "_chrony" {
  id   = 976
  home = "/var/lib/chrony"
}
user "_rpc" {
  id   = 977
  home = "/run/rpcbind"
}
user "statd" {
  id   = 978
  home = "/var/lib/nfs"
}
user "walt-sql" { id = 979 } # psql of `walt advanced sql`
user "walt-vnode" { id = 980 } # virtual nodes
user "nobody" { id = 65534 }

folder "/var/root" { mode = "0700" }
folder "/var/etc/walt" {}
folder "/var/lib/walt" {}
folder "/var/lib/walt/config" {}
folder "/var/lib/walt/images" {}
folder "/var/lib/walt/nodes" {}
folder "/var/lib/walt/journal" {}
folder "/var/lib/walt/firmware" {} # of devices, what the image does not contain
folder "/var/lib/containers/storage" {}
folder "/var/lib/ssh" { mode = "0700" }
folder "/var/lib/nfs" {}
folder "/var/lib/nfs/sm" { user = "statd" }
folder "/var/lib/nfs/sm.bak" { user = "statd" }
folder "/var/lib/nfs/v4recovery" {}
folder "/var/lib/chrony" {
  user = "_chrony"
  mode = "0750"
}
folder "/var/lib/postgresql" { user = "postgres" }
folder "/var/lib/postgresql/17" { user = "postgres" }
folder "/var/tmp" { mode = "1777" }
folder "/var/cache" {}
folder "/var/cache/walt" {}
folder "/var/cache/walt/blocking" { user = "walt-blocking" }
folder "/var/log" {}
folder "/var/log/walt" {} # a folder trackexec in it enables the tracing of the daemon
folder "/run/walt" {}
folder "/run/walt/exports.d" {}
folder "/run/lock" { mode = "1777" }
folder "/run/sshd" {}
folder "/run/rpcbind" { user = "_rpc" }
folder "/run/chrony" {
  user = "_chrony"
  mode = "0750"
}
folder "/run/postgresql" {
  user = "postgres"
  mode = "2775"
}

link "/etc/walt" { target = "/var/etc/walt" }
link "/root" { target = "/var/root" }
link "/etc/exports.d" { target = "/run/walt/exports.d" }
link "/etc/resolv.conf" { target = "/run/walt/resolv.conf" }
link "/etc/hostname" { target = "/run/walt/hostname" }
link "/etc/localtime" { target = "/run/walt/localtime" }
link "/etc/mtab" { target = "/proc/self/mounts" }
link "/usr/bin/sh" { target = "bash" }
link "/usr/bin/awk" { target = "mawk" }
link "/usr/bin/pager" { target = "less" }
link "/usr/bin/editor" { target = "nano" }
link "/usr/bin/psql" { target = "../lib/postgresql/17/bin/psql" }
link "/sbin/init" { target = "/usr/lib/walt/supervisor" }
link "/sbin/modprobe" { target = "/usr/lib/walt/supervisor" }
link "/usr/lib/walt/walt-console" { target = "supervisor" }
link "/usr/bin/walt-rescue" { target = "../lib/walt/supervisor" }
link "/usr/bin/waltctl" { target = "../lib/walt/supervisor" }
link "/usr/bin/walt-server-trackexec-replay" { target = "../lib/walt/services" }
link "/usr/bin/walt-server-trackexec-analyse" { target = "../lib/walt/services" }
link "/usr/bin/walt-dhcp-event" { target = "../lib/walt/services" }
link "/usr/bin/walt-virtual-node" { target = "../lib/walt/services" }
