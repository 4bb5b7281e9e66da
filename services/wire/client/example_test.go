package client_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/waltos/waltos/services/wire/client"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

// Ports of a server.
const api, streams = "walt.example.org:12345", "walt.example.org:12347"

// A user lists the nodes, and sees what the server prints meanwhile.
func ExampleDial() {
	ctx := context.Background()
	user := &client.User{Name: "alice", Out: os.Stdout, Err: os.Stderr}
	s, err := client.Dial(ctx, api, client.Options{Handler: user.Serve})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	nodes, err := s.Call(ctx, "show_nodes", "alice", true)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(nodes)
	// Keyword arguments are a dict.
	count, err := s.CallKeywords(ctx, "count_logs", nil, pickle.NewDict("history", pickle.Tuple{nil, nil}))
	fmt.Println(count, err)
}

// What the last hour has brought, and what comes.
func ExampleDumpLogs() {
	query := client.LogQuery{History: true, Start: float64(time.Now().Add(-time.Hour).Unix()), Realtime: true, Issuers: []string{"node1"}}
	err := client.DumpLogs(context.Background(), streams, query, func(r client.Record) error {
		fmt.Println(r.Time, r.Issuer, r.Stream, r.Line)
		return nil
	})
	fmt.Println(err)
}

// A command on a node, with its input.
func ExamplePrompt_Run() {
	out, err := client.NodeCommand("192.168.152.11", false, "wc", "-l").Run(context.Background(), streams, strings.NewReader("a\nb\n"))
	fmt.Printf("%s %v", out, err)
}

// A shell on a node, on a terminal.
func ExamplePrompt_Open() {
	shell := client.NodeCommand("192.168.152.11", true)
	shell.Window = &client.Window{Rows: 24, Columns: 80}
	t, err := shell.Open(context.Background(), streams)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer t.Close()
	fmt.Fprint(t, "exit\r")
	t.Resize(client.Window{Rows: 50, Columns: 132})
}

// Files of a node as a tar archive.
func ExampleTransfer_Fetch() {
	ctx := context.Background()
	s, err := client.Dial(ctx, api, client.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	valid, err := s.Call(ctx, "validate_node_cp", "node1:/etc/hostname", "./")
	parameters, ok := valid.(*pickle.Dict)
	if !ok {
		fmt.Println(err)
		return
	}
	archive, err := os.Create("files.tar")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer archive.Close()
	fmt.Println(client.Transfer{Request: rpc.TarFromNode, Parameters: parameters}.Fetch(ctx, streams, archive))
}

// What a node does: it says that it is booted, and logs.
func ExampleNotifyBoot() {
	ctx := context.Background()
	boot, err := client.NotifyBoot(ctx, streams)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer boot.Close()
	logs, err := client.OpenLogs(ctx, streams, "measures", true)
	if err != nil {
		fmt.Println(err)
		return
	}
	for i := range 3 {
		logs.Line(time.Now(), fmt.Sprint("measure ", i))
	}
	fmt.Println(logs.Close(), boot.Keep(ctx))
}
