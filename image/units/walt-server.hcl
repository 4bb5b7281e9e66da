# The WalT daemon: four processes, and the network services that follow it.
#
# What answers clients needs only the network to start, and has the processor first: calls
# that need the database wait for it, which matters while the first boot makes it.

unit "walt-server" {
  description = "the WalT server"
  type        = "group"
  needs = [ # restarted with it
    "walt-server-hub", "walt-server-main", "walt-server-db", "walt-server-blocking",
    "walt-server-dhcpd", "walt-server-tftpd", "walt-server-httpd", "walt-server-named",
  ]
  wants = ["chrony", "nfs-server", "sshd", "walt-server-vnodes"] # these stay: nodes hold on to them
}

unit "walt-server-db" {
  description       = "only user of the database"
  exec              = ["/usr/lib/walt/services", "server-db"]
  user              = "walt-db"
  wants             = ["postgresql"]
  socket "db" {
    listen = "unix:/run/walt/daemon/db.sock"
    user   = "root"
  }
  ready {
    notify  = true
    timeout = "5m"
  }
  alive { # it answers a call of its own, also while the database is away
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  limits {
    tasks = 256
  }
  sandbox {
    network = true # the site file may name a database elsewhere
    read    = ["/var/lib/postgresql"] # how full that disk is
    write   = ["/var/log/walt"] # the trace of its execution, if that is enabled
    hide    = ["/var/log/walt/journal"]
  }
}

unit "walt-server-blocking" {
  description = "long work and strangers: registries, switches"
  exec        = ["/usr/lib/walt/services", "server-blocking"]
  user        = "walt-blocking"
  socket "blocking" {
    listen = "unix:/run/walt/daemon/blocking.sock"
    user   = "root"
  }
  ready {
    notify = true
  }
  alive { # it answers a call of its own
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  limits {
    tasks = 512
  }
  sandbox {
    network = true
    write   = ["/var/cache/walt/blocking", "/var/log/walt"] # and the trace of its execution
    hide    = ["/var/log/walt/journal"]
  }
}

unit "walt-server-main" {
  description         = "logic of the platform: devices, nodes, images, logs"
  exec                = ["/usr/lib/walt/services", "server-main"]
  capabilities = [
    "CAP_SYS_ADMIN", "CAP_SYS_CHROOT", # mounts of images, commands in them
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_MKNOD", "CAP_SETFCAP", # files of images
    "CAP_SETUID", "CAP_SETGID", "CAP_KILL", # psql has a user of its own
    "CAP_NET_BIND_SERVICE", # `walt device expose`
  ]
  runtime_directories = ["walt/exports.d"]
  state_directories   = ["walt", "walt/images", "walt/nodes", "walt/keys", "walt/ssh", "containers/storage"]
  wants               = ["walt-server-netconfig"] # it waits for the database itself
  file_descriptors    = 4096 # boot notifications and log streams of nodes
  socket "streams" {
    listen = "tcp:0.0.0.0:12347"
  }
  socket "netconsole" {
    listen = "udp:0.0.0.0:12342"
  }
  socket "main" {
    listen = "unix:/run/walt/daemon/main.sock"
    user   = "walt-hub"
  }
  socket "state" {
    listen = "unix:/run/walt/daemon/state.sock"
    user   = "walt-net"
  }
  ready {
    notify  = true
    timeout = "10m" # longer than the database may take
  }
  alive { # it can still take the lock that every request needs
    notify = true
    period = "2m"
    signal = "ABRT" # it says what it waits for
  }
  reload {
    signal = "HUP" # images and database are read again
  }
  limits {
    cpu   = 500
    files = 65536
    tasks = 4096
  }
  sandbox {
    network    = true
    families   = ["netlink"]
    syscalls   = ["@mount", "@owner", "@identity", "@root", "@schedule"]
    namespaces = ["mount", "pid", "net", "ipc", "uts"] # of commands in images
    devices    = ["/dev/kvm"] # can nodes have it?
    proc       = "machine"
    mounts     = ["/var/lib/walt"] # images, for the NFS server
    write = [
      "/proc", "/var/lib/nfs",    # exportfs
      "/root/.ssh",               # the key that nodes accept
      "/var/lib/containers",      # the store of images
      "/var/log/walt",            # the trace of its execution, if that is enabled
    ]
    hide = ["/var/log/walt/journal"]
  }
}

unit "walt-server-vnodes" {
  description         = "machines of virtual nodes"
  exec                = ["/usr/lib/walt/services", "vnodes"]
  stop                = ["/usr/lib/walt/services", "vnodes", "-end"]
  user                = "walt-vnode"
  capabilities        = ["CAP_NET_ADMIN"] # their interfaces, in bridges
  runtime_directories = ["walt/vnodes"]
  wants               = ["walt-server-netconfig"]
  socket "vnodes" {
    listen = "unix:/run/walt/daemon/vnodes.sock"
    user   = "root"
  }
  ready {
    notify = true
  }
  alive { # it answers a call of its own
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  shutdown {
    timeout = "15s" # longer than a machine may take
    kill    = "main" # machines outlive the service, and end when the unit is stopped
  }
  limits {
    tasks = 4096
  }
  sandbox {
    network       = true
    families      = ["netlink", "packet"]
    write_execute = true # QEMU without the help of the processor
    write         = ["/var/lib/walt/nodes"]
    read          = ["/dev"] # kvm, tun and vhost-net appear with their drivers; others are not this user's
  }
}

unit "walt-server-hub" {
  description = "API sessions of clients and nodes"
  exec        = ["/usr/lib/walt/services", "server-hub", "-site", "/run/walt/site.hcl"]
  user        = "walt-hub"
  socket "api" {
    listen = "tcp:0.0.0.0:12345"
  }
  ready {
    notify = true
  }
  alive { # it opens a session with itself
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  limits {
    cpu   = 1000
    files = 65536
    tasks = 512
  }
  sandbox { # it reads what strangers send, and has no network but the connections that it is passed
    write = ["/var/log/walt"] # the trace of its execution, if that is enabled
    hide  = ["/var/log/walt/journal"]
  }
}

unit "walt-server-dhcpd" {
  description       = "addresses of walt-net"
  exec              = ["/usr/lib/walt/services", "dhcpd"]
  user              = "walt-net"
  capabilities      = ["CAP_NET_BIND_SERVICE", "CAP_NET_RAW"]
  state_directories = ["walt/services/dhcpd"]
  wants             = ["walt-server-netconfig"]
  ready {
    notify = true
  }
  alive { # the loop that receives packets comes round
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  limits {
    memory = "256M"
    tasks  = 256
  }
  sandbox {
    network  = true
    families = ["netlink", "packet"]
  }
}

unit "walt-server-tftpd" {
  description       = "boot files by TFTP"
  exec              = ["/usr/lib/walt/services", "tftpd"]
  user              = "walt-net"
  capabilities      = ["CAP_NET_BIND_SERVICE"]
  state_directories = ["walt/services/tftpd"]
  wants             = ["walt-server-netconfig"]
  ready {
    notify = true
  }
  alive { # it answers its own request
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  limits {
    memory = "256M"
    tasks  = 256
  }
  sandbox {
    network = true
    read    = ["/var/lib/walt"] # boot files of images
    hide    = ["/var/lib/walt/keys", "/var/lib/walt/ssh"]
  }
}

unit "walt-server-httpd" {
  description       = "boot files and web API"
  exec              = ["/usr/lib/walt/services", "httpd"]
  user              = "walt-net"
  state_directories = ["walt/services/httpd"]
  after             = ["walt-server-netconfig"]
  socket "http" {
    listen = "tcp:0.0.0.0:80"
  }
  ready {
    notify = true
  }
  alive { # the home page, from memory
    http    = "http://127.0.0.1:80/"
    timeout = "10s"
    signal  = "ABRT"
  }
  limits {
    memory = "256M"
    tasks  = 256
  }
  sandbox {
    read = ["/var/lib/walt"] # boot files of images
    hide = ["/var/lib/walt/keys", "/var/lib/walt/ssh"]
  }
}

unit "walt-server-named" {
  description       = "names of the platform"
  exec              = ["/usr/lib/walt/services", "named"]
  user              = "walt-net"
  capabilities      = ["CAP_NET_BIND_SERVICE"]
  state_directories = ["walt/services/named"]
  wants             = ["walt-server-netconfig"]
  ready {
    notify = true
  }
  alive { # it answers its own question
    notify = true
    period = "1m"
    signal = "ABRT"
  }
  limits {
    memory = "256M"
    tasks  = 256
  }
  sandbox {
    network  = true
    families = ["netlink"]
  }
}
