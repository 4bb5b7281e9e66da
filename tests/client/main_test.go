// Package client has the real walt client and its Python API object use the daemon, whole:
// every subcommand, with its output compared byte for byte with what WalT 10.0 prints.
//
// The daemon runs natively (package native), with nodes that are processes of the test.
// Sessions are in testdata/*.txt:
//
//	# comment
//	alice$ walt node show         a command line of a user
//	< y                           a line of its input, before what it prints
//	text                          a line of its standard output
//	! text                        a line of its standard error
//	? 1                           its exit code, if not 0
//	? later                       work of later: any message, and no hang
//	* n1 log weather it rains     something else happens, see platform.do
//
// In what is printed, ␛ stands for the escape character, ␍ for a carriage return, · for a blank at the end of a
// line, ¬ at the end of the text says that no newline ends it, … stands for anything within
// a line or, alone, for any lines, and {date}, {micros} and {clock} for times.
//
//	go test ./tests/client -run Commands -update
//
// writes what was printed in place of what was expected, to be judged by the reader.
package client

import (
	"os"
	"testing"

	"github.com/waltos/waltos/tests/native"
)

func TestMain(m *testing.M) { os.Exit(native.Run(m)) }
