// Command services holds every service of a WalT server in one program: its first
// argument names the one to run. The supervisor's units are its usual caller.
package main

import (
	"fmt"
	"os"
)

func main() {
	if len(os.Args) < 2 {
		fmt.Fprintln(os.Stderr, "usage: services NAME [ARGUMENT...]")
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "services: no service is named %q\n", os.Args[1])
	os.Exit(2)
}
