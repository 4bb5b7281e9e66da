# The programs kept from Debian, and the network.
#
# Each unit is in a sandbox that closes everything but what is named there. `waltctl
# security` shows what that leaves to it.

unit "walt-server-netconfig" {
  description   = "networks of the server: interfaces, bridge walt-net, forwarding, NAT"
  exec          = ["/usr/lib/walt/services", "netconfig"]
  capabilities  = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_NET_BIND_SERVICE", "CAP_DAC_OVERRIDE"] # links and rules; DHCP; the socket of walt-net
  state_directories = ["walt"]
  ready {
    notify  = true
    timeout = "60s"
  }
  limits {
    cpu    = 1000
    memory = "128M"
    tasks  = 64
  }
  sandbox {
    network  = true
    families = ["netlink", "packet"]
    write    = ["/run/walt", "/proc/sys/net"] # resolv.conf; forwarding
    hide     = ["/var/lib/walt/keys", "/var/lib/walt/ssh"]
  }
}

# For people at the machine: it depends on nothing, so that it is there when all else fails.
unit "console" {
  description = "screen of the consoles"
  exec        = ["/usr/lib/walt/walt-console"]
  sandbox {
    unconfined = "its shell is for administrators who repair what is broken"
  }
  restart {
    give_up = "never"
  }
}

unit "postgresql" {
  description         = "PostgreSQL 17, on a unix socket only"
  exec                = ["/usr/lib/walt/services", "postgresql"]
  user                = "postgres"
  runtime_directories = ["postgresql"]
  state_directories   = ["postgresql", "postgresql/17"]
  ready {
    notify  = true
    timeout = "5m" # the first start makes the cluster
  }
  shutdown {
    signal  = "INT" # fast shutdown
    timeout = "60s"
  }
  limits {
    tasks = 512
  }
  sandbox {} # clients come by the socket in its folder
}

unit "rpcbind" {
  description         = "port mapper of NFS version 3"
  exec                = ["/usr/sbin/rpcbind", "-f", "-w"]
  runtime_directories = ["rpcbind"]
  capabilities        = ["CAP_NET_BIND_SERVICE", "CAP_SETUID", "CAP_SETGID"] # to become _rpc
  after               = ["walt-server-netconfig"]
  ready {
    tcp = "127.0.0.1:111"
  }
  limits {
    memory = "32M"
    tasks  = 16
  }
  sandbox {
    network  = true
    families = ["netlink"]
    syscalls = ["@identity"]
    write    = ["/run"] # its socket and its lock
    read     = ["/run/walt"]
  }
}

unit "nfs-kernel" {
  description  = "control file system of the NFS server of the kernel"
  type         = "oneshot"
  exec         = ["/usr/lib/walt/services", "nfs", "prepare"]
  capabilities = ["CAP_SYS_ADMIN"] # to mount it
  sandbox {
    network  = true # the file system is that of the network it is mounted in
    syscalls = ["@mount"]
    proc     = "machine"
    mounts   = ["/proc"]
    write    = ["/var/lib/nfs", "/run/walt/exports.d"]
  }
}

# What mountd and exportfs tell the kernel are paths in their own view of the file systems, and
# the kernel keeps hold of them: that must be the machine's. They mount nothing, so Landlock
# keeps them from writing elsewhere.

unit "nfs-mountd" {
  description  = "MOUNT protocol of NFS version 3"
  exec         = ["/usr/sbin/rpc.mountd", "-F"]
  capabilities = ["CAP_NET_BIND_SERVICE", "CAP_DAC_READ_SEARCH"] # reserved ports; exports of any owner
  needs        = ["nfs-kernel"]
  wants        = ["rpcbind"]
  limits {
    memory = "64M"
    tasks  = 16
  }
  sandbox {
    root     = "machine"
    proc     = "machine"
    network  = true
    families = ["netlink"]
    syscalls = ["name_to_handle_at"] # which file system an export is of
    write    = ["/proc/fs/nfsd", "/var/lib/nfs"]
  }
}

unit "nfs-server" {
  description  = "NFS server of the kernel"
  type         = "oneshot"
  exec         = ["/usr/lib/walt/services", "nfs", "up"]
  stop         = ["/usr/lib/walt/services", "nfs", "down"]
  capabilities = ["CAP_NET_BIND_SERVICE", "CAP_DAC_READ_SEARCH"]
  needs        = ["nfs-kernel"]
  wants        = ["rpcbind", "nfs-mountd"]
  sandbox {
    root     = "machine"
    proc     = "machine"
    network  = true
    families = ["netlink"]
    write    = ["/proc", "/var/lib/nfs"] # the tables of exports are below each process
  }
}

unit "chrony" {
  description         = "clock of the platform (NTP)"
  exec                = ["/usr/lib/walt/services", "chrony"]
  user                = "_chrony"
  capabilities        = ["CAP_SYS_TIME", "CAP_NET_BIND_SERVICE"]
  runtime_directories = ["chrony"]
  state_directories   = ["chrony"]
  after               = ["walt-server-netconfig"]
  limits {
    memory = "64M"
    tasks  = 16
  }
  sandbox {
    network  = true
    syscalls = ["@clock"]
  }
}

# For units that need the right time: let them have it in after or wants.
unit "time-sync" {
  description = "waits until the clock is synchronised"
  type        = "oneshot"
  exec        = ["/usr/lib/walt/services", "time-sync", "--limit", "30s"]
  user        = "nobody"
  after       = ["chrony"]
  sandbox {
    syscalls = ["@clock"] # to ask; only a capability could change it
  }
}

unit "sshd" {
  description = "secure shell for administrators"
  exec        = ["/usr/lib/walt/services", "sshd"]
  after       = ["walt-server-netconfig"]
  ready {
    tcp = "127.0.0.1:22"
  }
  sandbox {
    unconfined = "its sessions are those of administrators, who are root and repair anything"
  }
}

# Periodic jobs. `waltctl status` shows the next run of each; `waltctl start` runs it now.

unit "disk-trim" {
  description = "tells the disk which blocks of the data partition are free"
  type        = "oneshot"
  exec        = ["/usr/sbin/fstrim", "--verbose", "--quiet-unsupported", "/var/lib/walt"]
  capabilities = ["CAP_SYS_ADMIN"] # the kernel asks for it
  timer {
    every      = "168h"
    after_boot = "15m"
    jitter     = "10m"
    persistent = true
  }
  limits {
    cpu    = 10
    memory = "32M"
    tasks  = 4
    io     = 10
  }
  sandbox {
    write = ["/var/lib/walt"] # any folder of that partition
  }
}

# A block that has gone bad is found while the machine still runs, not at the next boot: to read
# the root is to verify it.
unit "root-check" {
  description = "reads the root, which the kernel verifies"
  type        = "oneshot"
  exec        = ["/usr/bin/dd", "if=/dev/dm-0", "of=/dev/null", "bs=1M", "iflag=direct", "status=none"]
  condition {
    exists = ["/dev/dm-0"]
  }
  timer {
    every      = "168h"
    after_boot = "1h"
    jitter     = "1h"
    persistent = true
  }
  limits {
    cpu    = 10
    memory = "32M"
    tasks  = 4
    io     = 10
    io_max = "20M" # nobody waits for it
  }
  sandbox {
    devices = ["/dev/dm-0"]
  }
}
