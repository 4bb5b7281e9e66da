// Command init stands for /sbin/init of an image in a test of the node program: it
// prints what it finds, plays the ssh server and the WalT server that the background
// process talks to, and has it reboot the node.
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

func main() {
	fmt.Println("init:", os.Getpid(), os.Args[1:], os.Getenv("walt_init_done"), os.Getenv("vnode_mode"), os.Getenv("had_procfs"), os.Getenv("had_sysfs"))
	fmt.Println("write:", os.WriteFile("/etc/written", []byte("x"), 0o644))
	for _, file := range []string{"/run/walt/rootfs/mnt/fs_rw/etc/written", "/run/walt/rootfs/mnt/nfsroot/etc/written", "/run/walt/rootfs/mnt/nfsroot/sbin/init", "/run/uptime-root-mount"} {
		_, err := os.Stat(file)
		fmt.Println("exists:", file, err == nil)
	}
	environment, err := os.ReadFile("/bin/walt-env")
	fmt.Printf("environment: %q %v\n", environment, err)

	ssh, err := net.Listen("tcp", "127.0.0.1:22")
	check(err)
	go func() {
		for {
			conn, err := ssh.Accept()
			check(err)
			io.WriteString(conn, "SSH-2.0-test\r\n")
			conn.Close()
		}
	}()
	server, err := net.Listen("tcp", "127.0.0.1:12347")
	check(err)
	conn, err := server.Accept()
	check(err)
	request, err := bufio.NewReader(conn).ReadString('\n')
	fmt.Printf("notification: %q %v\n", request, err)
	io.WriteString(conn, "OK\n")

	for _, request := range []string{"PING", "REBOOT"} {
		conn, err := net.Dial("tcp", "127.0.0.1:12346")
		check(err)
		fmt.Fprintf(conn, "MODE single\n%s\n", request)
		answer, err := io.ReadAll(conn)
		fmt.Println("control:", request, strings.TrimSpace(string(answer)), err)
		conn.Close()
	}
	select {}
}

func check(err error) {
	if err != nil {
		fmt.Println("init failed:", err)
		os.Exit(1)
	}
}
