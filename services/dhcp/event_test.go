package dhcp

import (
	"bufio"
	"net"
	"reflect"
	"strings"
	"testing"

	"github.com/waltos/waltos/services/state"
	"github.com/waltos/waltos/services/wire/pickle"
	"github.com/waltos/waltos/services/wire/rpc"
)

func TestEvent(t *testing.T) {
	const ip, mac = "192.168.152.9", "02:00:00:AA:bb:01"
	node := &state.Registration{UCI: "walt.node.rpi-b", IP: ip, MAC: strings.ToLower(mac)}
	named := func(name string) *state.Registration {
		r := *node
		r.Name = name
		return &r
	}
	for _, c := range []struct {
		args []string
		want *state.Registration
		err  string
	}{
		{[]string{"commit", "", "walt.node.rpi-b", ip, mac, "", "0", "unknown"}, node, ""},
		{[]string{"commit", "", "walt.node.rpi-b", ip, mac, "Pi", "0", "unknown"}, named("pi-aabb01"), ""},
		{[]string{"commit", "", "walt.node.rpi-b", ip, mac, "pi-AABB01", "1", "unknown"}, named("pi-aabb01"), ""},
		{[]string{"commit", "--force-name", "", "walt.node.rpi-b", ip, mac, "Pi", "0", "unknown"}, named("Pi"), ""},
		{[]string{"commit", "", "walt.node.rpi-b", ip, mac, "Pi", "1", "switch"}, nil, ""},
		{[]string{"commit", "MSFT 5.0", "", ip, mac, "pc", "1", "unknown"}, nil, ""},
		{nil, nil, "usage: "},
		{[]string{"release"}, nil, "usage: "},
		{[]string{"commit", "", "", ip, mac, "", "0"}, nil, "6 arguments follow commit, where 7 are needed"},
		{[]string{"commit", "", "", "::1", mac, "", "0", "unknown"}, nil, `"::1" is not an IPv4 address`},
		{[]string{"commit", "", "", ip, "02:00", "", "0", "unknown"}, nil, `"02:00" is not a MAC address`},
		{[]string{"commit", "", "", ip, "02:00:00:00:00:00:00:01", "", "0", "unknown"}, nil, "is not a MAC address"},
		{[]string{"commit", "", "", ip, mac, "", "yes", "unknown"}, nil, `IS_KNOWN is "yes"`},
		{[]string{"commit", "", "", ip, mac, strings.Repeat("x", 256), "0", "unknown"}, nil, "argument 5 has 256 bytes"},
	} {
		got, err := parseEvent(c.args)
		if !reflect.DeepEqual(got, c.want) || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%q: got %+v, %v, want %+v, %q", c.args, got, err, c.want, c.err)
		}
	}
}

// TestEventIsSent looks at the exchange of the command as a server of the API sees it.
func TestEventIsSent(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	seen := make(chan rpc.Message, 1)
	go func() {
		defer close(seen)
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		r := bufio.NewReader(conn)
		for _, want := range []string{"10", "SSAPI"} {
			if line, err := rpc.ReadLine(r, 100); err != nil || line != want {
				t.Errorf("got %q, %v, want %q", line, err, want)
				return
			}
		}
		conn.Write([]byte("10.0\n"))
		codec := rpc.NewCodec(r, conn, pickle.Limits{Size: 1 << 16, Depth: 8, Values: 100})
		m, err := codec.Read()
		if err == nil && m.Kind == rpc.SetMode {
			if err = codec.SetMode(rpc.Mode(m.Name)); err == nil {
				m, err = codec.Read()
			}
		}
		if err != nil {
			t.Error(err)
			return
		}
		seen <- m
		codec.Write(rpc.Pickle, rpc.Message{Kind: rpc.Result})
	}()
	err = sendEvent(t.Context(), ln.Addr().String(), state.Registration{VCI: "v", UCI: "u", IP: "192.168.152.9", MAC: "02:00:00:aa:bb:01", Name: "pi"})
	if err != nil {
		t.Fatal(err)
	}
	m := <-seen
	if want := (pickle.Tuple{"v", "u", "192.168.152.9", "02:00:00:aa:bb:01", "pi"}); m.Name != "register_device" || !reflect.DeepEqual(m.Args, want) {
		t.Errorf("called %s%v, want register_device%v", m.Name, m.Args, want)
	}
}

func FuzzEvent(f *testing.F) {
	f.Add("commit\x00\x00walt.node.rpi-b\x00192.168.152.9\x0002:00:00:aa:bb:01\x00Pi\x000\x00unknown")
	f.Add("commit\x00--force-name\x00\x00\x00192.168.152.9\x0002:00:00:aa:bb:01\x00\xff\x001\x00unknown")
	f.Fuzz(func(t *testing.T, text string) {
		args := strings.Split(text, "\x00")
		r, err := parseEvent(args)
		if err != nil || r == nil {
			return
		}
		if r.MAC != strings.ToLower(r.MAC) || len(r.MAC) != 17 || len(r.Name) > eventText+7 {
			t.Errorf("%q is taken for %+v", args, r)
		}
	})
}
