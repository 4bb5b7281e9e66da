// Package layout says where the node program stands in a mounted image and under
// which names it is called there. Server and node both import it.
package layout

// Program is the path of the node program in an image: the kernel command line of
// every node says init=/bin/walt-init.
const Program = "/bin/walt-init"

// Environment is the path of the file of shell variables that the server writes for
// the node program and for users' scripts (node-protocols.md section 2.4, walt-env).
const Environment = "/bin/walt-env"

// Links are the other names of the node program in an image, as absolute paths; each
// is a symbolic link to Program.
var Links = []string{
	"/bin/walt-log-echo",
	"/bin/walt-log-cat",
	"/bin/walt-log-tee",
	"/bin/walt-echo",
	"/bin/walt-cat",
	"/bin/walt-tee",
	"/bin/walt-report-lldp-neighbor",
	"/bin/_walt_internal_/walt-rpc",
	"/bin/_walt_internal_/walt-clock-sync",
	"/bin/_walt_internal_/walt-tar-send",
	"/bin/_walt_internal_/walt-dump-diff-tar",
	"/bin/_walt_internal_/walt-timeout",
}

// Variables of the environment file, in its order.
var Variables = []string{
	"walt_server_ip",
	"walt_server_rpc_port",
	"walt_server_logs_port",
	"walt_server_notify_bootup_port",
	"walt_image_id",
	"walt_image_size_kib",
}
