# The programs kept from Debian, and the network.

unit "walt-server-netconfig" {
  description   = "networks of the server: interfaces, bridge walt-net, forwarding, NAT"
  exec          = ["/usr/lib/walt/services", "netconfig"]
  state_directories = ["walt"]
  ready {
    notify  = true
    timeout = "60s"
  }
  limits {
    cpu = 1000
  }
}

# For people at the machine: it depends on nothing, so that it is there when all else fails.
unit "console" {
  description = "screen of the consoles"
  exec        = ["/usr/lib/walt/walt-console"]
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
}

unit "rpcbind" {
  description         = "port mapper of NFS version 3"
  exec                = ["/usr/sbin/rpcbind", "-f", "-w"]
  runtime_directories = ["rpcbind"]
  after               = ["walt-server-netconfig"]
  ready {
    tcp = "127.0.0.1:111"
  }
}

unit "nfs-mountd" {
  description = "MOUNT protocol of NFS version 3"
  pre         = [["/usr/lib/walt/services", "nfs", "prepare"]]
  exec        = ["/usr/sbin/rpc.mountd", "-F"]
  wants       = ["rpcbind"]
}

unit "nfs-server" {
  description = "NFS server of the kernel"
  type        = "oneshot"
  exec        = ["/usr/lib/walt/services", "nfs", "up"]
  stop        = ["/usr/lib/walt/services", "nfs", "down"]
  wants       = ["rpcbind", "nfs-mountd"]
}

unit "chrony" {
  description         = "clock of the platform (NTP)"
  exec                = ["/usr/lib/walt/services", "chrony"]
  runtime_directories = ["chrony"]
  after               = ["walt-server-netconfig"]
}

# For units that need the right time: let them have it in after or wants.
unit "time-sync" {
  description = "waits until the clock is synchronised"
  type        = "oneshot"
  exec        = ["/usr/lib/walt/services", "time-sync", "--limit", "30s"]
  user        = "nobody"
  after       = ["chrony"]
}

unit "sshd" {
  description = "secure shell for administrators"
  exec        = ["/usr/lib/walt/services", "sshd"]
  after       = ["walt-server-netconfig"]
  ready {
    tcp = "127.0.0.1:22"
  }
}
